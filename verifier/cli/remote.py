"""The operator's commands' way to a verifier: HTTPS by the standard library, JSON in and out."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from verifier.errors import VtpmAttestError

TIMEOUT: Final = 30.0
MAX_REPLY: Final = 64 * 1024 * 1024


class RemoteError(VtpmAttestError):
    """The verifier could not be asked, or refused; the text says what to do next."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a verifier is and who asks."""

    server: str
    token: str | None
    ca_file: Path | None

    @classmethod
    def from_options(cls, server: str | None, token: str | None, ca: Path | None) -> Remote:
        """Options first, then ATTESTCTL_SERVER, ATTESTCTL_TOKEN and ATTESTCTL_CA."""
        address = server or os.environ.get("ATTESTCTL_SERVER")
        if not address:
            raise RemoteError("no verifier named: pass --server https://HOST:PORT or set ATTESTCTL_SERVER")
        ca_text = os.environ.get("ATTESTCTL_CA")
        return cls(
            address.rstrip("/"),
            token or os.environ.get("ATTESTCTL_TOKEN"),
            ca or (Path(ca_text) if ca_text else None),
        )

    def get(
        self, path: str, query: Mapping[str, object | None] | None = None, *, accept: str = "application/json"
    ) -> Any:  # noqa: ANN401 - JSON
        """GET `path`; JSON decoded, anything else as text."""
        return self._call("GET", path + _query(query or {}), None, accept)

    def post(self, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
        """POST `body` as JSON."""
        return self._call("POST", path, json.dumps(body).encode(), "application/json")

    def put(self, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
        """PUT `body` as JSON."""
        return self._call("PUT", path, json.dumps(body).encode(), "application/json")

    def delete(self, path: str) -> None:
        """DELETE `path`."""
        self._call("DELETE", path, None, "application/json")

    def upload(
        self, path: str, content: bytes, media_type: str, query: Mapping[str, object | None] | None = None
    ) -> Any:  # noqa: ANN401 - JSON
        """POST bytes as they are."""
        return self._call("POST", path + _query(query or {}), content, "application/json", media_type)

    def _call(
        self, method: str, path: str, body: bytes | None, accept: str, media_type: str = "application/json"
    ) -> Any:  # noqa: ANN401 - JSON
        parts = urlsplit(self.server)
        if parts.scheme != "https" or not parts.hostname:
            raise RemoteError(f"{self.server!r} is not an https:// address")
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=TIMEOUT, context=self._tls()
        )
        headers = {"Accept": accept} | ({"Content-Type": media_type} if body is not None else {})
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, parts.path + path, body, headers)
            response = connection.getresponse()
            data = response.read(MAX_REPLY)
        except ssl.SSLCertVerificationError as error:
            raise RemoteError(
                f"the verifier's certificate is not trusted ({error.verify_message}); pass --ca with the verifier's"
                " CA (state folder, tls/ca.pem)"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise RemoteError(
                f"cannot reach {self.server}: {error}; is it running, is the port right?"
            ) from error
        finally:
            connection.close()
        return _reply(response.status, response.headers.get_content_type(), data)

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        except (OSError, ssl.SSLError) as error:
            raise RemoteError(f"cannot read the CA file {self.ca_file}: {error}") from error


def _query(query: Mapping[str, object | None]) -> str:
    pairs = {key: str(value) for key, value in query.items() if value is not None}
    return f"?{urlencode(pairs)}" if pairs else ""


def _reply(status: int, content_type: str, data: bytes) -> Any:  # noqa: ANN401 - JSON
    is_json = content_type.endswith("json")
    try:
        value = json.loads(data) if is_json and data else data.decode()
    except ValueError as error:
        raise RemoteError(f"the verifier's answer ({status}) does not parse: {error}") from error
    if status < http.client.BAD_REQUEST:
        return value
    if isinstance(value, dict):
        detail = value.get("detail") or value.get("title", "")
        remedy = value.get("remedy", "")
        raise RemoteError(
            f"{status} {value.get('code', '')}: {detail}" + (f"\nnext: {remedy}" if remedy else "")
        )
    raise RemoteError(f"the verifier answered {status}")


def path_of(*parts: str) -> str:
    """A path from parts that may hold anything."""
    return "/" + "/".join(quote(part, safe="") for part in parts)
