"""Run by itself, with xds-protos on its path: reads a configuration of Envoy into Envoy's own protobuf types.

Prints, as JSON, the full names of all typed extensions that were read, and the fields in use that Envoy has marked as deprecated.
A field or type that Envoy does not know is an error on stderr and exit code 1. It is not `envoy --mode validate`: constraints on
values, and whether a build of Envoy has the extensions, are not looked at.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import yaml
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any

KNOWN = (
    "envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
)


def main() -> int:
    types = {}
    for name in KNOWN:
        module = importlib.import_module(name)
        types |= {
            f"{module.DESCRIPTOR.package}.{key}": getattr(module, key)
            for key in module.DESCRIPTOR.message_types_by_name
        }
    bootstrap = importlib.import_module("envoy.config.bootstrap.v3.bootstrap_pb2").Bootstrap()
    try:
        json_format.ParseDict(yaml.safe_load(Path(sys.argv[1]).read_text()), bootstrap)
    except json_format.ParseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    found: dict[str, list[str]] = {"extensions": [], "deprecated": []}
    look(bootstrap, types, found)
    sys.stdout.write(json.dumps(found))
    return 0


def look(message, types, found) -> None:
    if isinstance(message, Any):
        name = message.type_url.rpartition("/")[2]
        found["extensions"].append(name)
        inner = types[name]()
        message.Unpack(inner)
        return look(inner, types, found)
    for field, value in message.ListFields():
        if field.GetOptions().deprecated:
            found["deprecated"].append(field.full_name)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
            look(each, types, found)
    return None


if __name__ == "__main__":
    sys.exit(main())
