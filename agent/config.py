"""Settings: command line over environment over `/etc/vtpm-attest/agent.toml`. Read once, at start."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, get_args

from msgspec import Struct

from agent.ak import AK_CHOICES
from agent.ek import AUTO, EK_CHOICES
from agent.errors import ConfigError
from agent.files import program_data
from agent.standing import AttestedOn
from agent.state import DEFAULT_DIRECTORY

DEFAULT_FILE: Final = (
    program_data(os.environ) / "agent.toml"
    if sys.platform == "win32"
    else Path("/etc/vtpm-attest/agent.toml")
)
PREFIX: Final = "VTPM_ATTEST_"
KEYS: Final = (
    "server",
    "token",
    "token_file",
    "ca_file",
    "tcti",
    "state_dir",
    "root",
    "ek",
    "ak",
    "ak_certificate",
    "ear_file",
    "ear_audience",
    "encoding",
    "runtime_dir",
    "ready_wait",
    "attested_on",
    "attested_wait",
)
"""Each may stand in the file, as `VTPM_ATTEST_<KEY>` in the environment and, but for `root`, as an option."""

AUDIENCE: Final = re.compile(r"[!-~]{1,256}\Z")
Encoding = Literal["msgpack", "json"]
JOIN_TOKEN_CREDENTIALS: Final = ("vtpm-attest.join-token", "join-token")
"""Where a service manager puts the join token, in the folder of `CREDENTIALS_DIRECTORY` (systemd.exec(5))."""
READY_SECONDS: Final = 30.0
ATTESTED_SECONDS: Final = 90.0
FOREVER: Final = float("inf")


class Settings(Struct, frozen=True, kw_only=True):
    """How this agent was told to work.

    `ak` None: as it enrolled, else ECC P-256. `ak_certificate`: where to keep the AK certificate that the verifier
    issues; None: none is asked for. `ear_file`: where to keep the EAR of the latest verdict; `ear_audience`: for whom it is.
    `runtime_dir`: where other programs see how this machine was judged. `ready_wait`: seconds after which a service counts as
    started without a verdict. `attested_on`: which verdicts `wait` waits for, `attested_wait`: how many seconds.
    """

    server: str | None
    token: str | None
    ca_file: Path | None
    tcti: str | None
    state_dir: Path
    root: Path | None
    ek: str
    ak: str | None
    ak_certificate: Path | None
    ear_file: Path | None
    ear_audience: str | None
    encoding: Encoding
    runtime_dir: Path | None
    ready_wait: float
    attested_on: AttestedOn
    attested_wait: float


def load(options: Mapping[str, str | None], environ: Mapping[str, str], file: Path | None) -> Settings:
    """Merge the three sources.

    Raises:
        ConfigError: the file cannot be read, names an unknown key, or a value is none of those allowed.
    """
    stored = _read(file)
    merged: dict[str, str] = {}
    for key in KEYS:
        for value in (options.get(key), environ.get(PREFIX + key.upper()), stored.get(key)):
            if value:
                merged[key] = value
                break
    token = merged.get("token")
    if token is None and "token_file" in merged:
        token = _token(Path(merged["token_file"]))
    elif token is None:
        token = _credential(environ)
    encoding = merged.get("encoding", "msgpack")
    if encoding not in get_args(Encoding):
        raise ConfigError(
            f"no encoding is called {encoding!r}", f"use one of {', '.join(get_args(Encoding))}"
        )
    ek = merged.get("ek", AUTO)
    if ek not in EK_CHOICES:
        raise ConfigError(f"no EK is called {ek!r}", f"use one of {', '.join(EK_CHOICES)}")
    return Settings(
        server=merged.get("server"),
        token=token,
        ca_file=_path(merged.get("ca_file")),
        tcti=merged.get("tcti"),
        state_dir=Path(merged.get("state_dir", DEFAULT_DIRECTORY)),
        root=_path(merged.get("root")),
        ek=ek,
        ak=_ak(merged.get("ak")),
        ak_certificate=_path(merged.get("ak_certificate")),
        ear_file=_path(merged.get("ear_file")),
        ear_audience=_audience(merged.get("ear_audience")),
        encoding="json" if encoding == "json" else "msgpack",
        runtime_dir=_path(
            merged.get("runtime_dir") or environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        ),
        ready_wait=_seconds(merged, "ready_wait", READY_SECONDS),
        attested_on=_attested_on(merged.get("attested_on", "verdict")),
        attested_wait=FOREVER
        if merged.get("attested_wait") == "forever"
        else _seconds(merged, "attested_wait", ATTESTED_SECONDS),
    )


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _audience(value: str | None) -> str | None:
    if value is not None and not AUDIENCE.match(value):
        raise ConfigError(
            f"{value!r} is no audience",
            "use up to 256 printable ASCII characters without spaces, such as a URL",
        )
    return value


def _seconds(merged: Mapping[str, str], key: str, default: float) -> float:
    text = merged.get(key)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"{key} {text!r} is no time", 'give seconds, such as "90"')
    return seconds


def _attested_on(value: str) -> AttestedOn:
    if value == "affirming":
        return "affirming"
    if value != "verdict":
        raise ConfigError(
            f"attested_on {value!r} is not known", f"use one of {', '.join(get_args(AttestedOn))}"
        )
    return "verdict"


def _ak(value: str | None) -> str | None:
    if value is not None and value not in AK_CHOICES:
        raise ConfigError(f"no AK is called {value!r}", f"use one of {', '.join(AK_CHOICES)}")
    return value


def _read(file: Path | None) -> Mapping[str, str]:
    path = file or DEFAULT_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if file is None:
            return {}
        raise ConfigError(f"{path} does not exist", "name an existing file with --config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "run as root, or correct its mode") from error
    import tomllib  # noqa: PLC0415 - only where there is a file

    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not TOML: {error}", 'lines look like: server = "https://host:8443"'
        ) from error
    for key, value in content.items():
        if key not in KEYS or not isinstance(value, str):
            raise ConfigError(
                f"{path}: {key!r} is not a text setting of this agent", f"known: {', '.join(KEYS)}"
            )
    return content


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {path} cannot be read: {error}", "correct token_file") from error


def _credential(environ: Mapping[str, str]) -> str | None:
    """The join token, where a service manager has one for this service."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    found = (Path(folder) / name for name in JOIN_TOKEN_CREDENTIALS)
    return next((_token(path) for path in found if path.exists()), None)
