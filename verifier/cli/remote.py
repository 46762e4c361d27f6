"""The operator's commands' way to a verifier: HTTPS by the standard library, JSON in and out."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from verifier.errors import VtpmAttestError

TIMEOUT: Final = 30.0
SILENCE: Final = 45.0
"""Seconds without a byte after which a stream is taken for dead: the verifier says something every 15."""
MAX_REPLY: Final = 64 * 1024 * 1024
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = frozenset({62, 64})
"""Another host name, another IP address."""


class RemoteError(VtpmAttestError):
    """The verifier could not be asked, or refused; the text says what to do next."""


class AddressError(RemoteError):
    """It was not said well enough whom to ask: nobody was."""


class UnreachableError(RemoteError):
    """No answer: it may be there again soon."""


class HttpError(RemoteError):
    """The verifier answered, and not with what was asked for.

    Attributes:
        status: of HTTP.
        retry_after: seconds, where it said so.
    """

    def __init__(self, status: int, text: str, retry_after: float | None = None) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(text)


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
            raise AddressError("no verifier named: pass --server https://HOST:PORT or set ATTESTCTL_SERVER")
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

    @contextmanager
    def lines(self, path: str, query: Mapping[str, object | None], accept: str) -> Iterator[Iterator[bytes]]:
        """GET `path` and read the answer line by line, for as long as it lasts.

        The lines raise `UnreachableError` where the connection breaks, or is silent for longer than `SILENCE`.
        """
        with self._answer("GET", path + _query(query), None, {"Accept": accept}, SILENCE) as response:
            if response.status != HTTPStatus.OK:
                _decoded(response)
            if response.headers.get_content_type() != accept:
                raise HttpError(response.status, f"{self.server} answered something else than {accept}")
            yield iter(response.readline, b"")

    def _call(
        self, method: str, path: str, body: bytes | None, accept: str, media_type: str = "application/json"
    ) -> Any:  # noqa: ANN401 - JSON
        headers = {"Accept": accept} | ({"Content-Type": media_type} if body is not None else {})
        with self._answer(method, path, body, headers, TIMEOUT) as response:
            return _decoded(response)

    @contextmanager
    def _answer(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(self.server)
        if parts.scheme != "https" or not parts.hostname:
            raise AddressError(f"{self.server!r} is not an https:// address; pass --server https://HOST:PORT")
        connection = http.client.HTTPSConnection(
            parts.hostname, _port(parts), timeout=timeout, context=self._tls()
        )
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, parts.path + path, body, headers)
            yield connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise RemoteError(_distrust(error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"cannot reach {self.server}: {error}; is it running, is the port right?"
            ) from error
        finally:
            connection.close()

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        except (OSError, ssl.SSLError) as error:
            raise AddressError(
                f"cannot read the CA file {self.ca_file}: {error}; it is tls/ca.pem in the verifier's state folder"
            ) from error


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or 443
    except ValueError as error:
        raise AddressError(f"--server: {error}; pass https://HOST:PORT") from error


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    """Why a certificate is not trusted, and what to do (the numbers are OpenSSL's, x509_vfy.h)."""
    if error.verify_code == _EXPIRED:
        step = (
            "restart the verifier, which renews its own certificate (or renew the one in tls.certificate), and look"
            " at the clocks of both machines"
        )
    elif error.verify_code == _NOT_YET_VALID:
        step = "look at the clocks of both machines"
    elif error.verify_code in _OTHER_NAME:
        step = "name the verifier in --server as its certificate does, or add the name to its setting tls.hostnames"
    else:
        step = "pass --ca with the verifier's CA (state folder, tls/ca.pem)"
    return f"the verifier's certificate is not trusted ({error.verify_message}); {step}"


def _query(query: Mapping[str, object | None]) -> str:
    pairs = {key: str(value) for key, value in query.items() if value is not None}
    return f"?{urlencode(pairs)}" if pairs else ""


def _decoded(response: http.client.HTTPResponse) -> Any:  # noqa: ANN401 - JSON
    status, data = response.status, response.read(MAX_REPLY)
    is_json = response.headers.get_content_type().endswith("json")
    try:
        value = json.loads(data) if is_json and data else data.decode()
    except ValueError as error:
        raise RemoteError(f"the verifier's answer ({status}) does not parse: {error}") from error
    if status < HTTPStatus.BAD_REQUEST:
        return value
    after = response.headers.get("Retry-After", "")
    raise HttpError(status, _refusal(status, value), float(after) if after.isdigit() else None)


def _refusal(status: int, value: object) -> str:
    if not isinstance(value, dict):
        return f"the verifier answered {status}; is there another server at this address?"
    detail = value.get("detail") or value.get("title", "")
    remedy = _NEXT_STEPS.get(status) or value.get("remedy", "")
    return f"{status} {value.get('code', '')}: {detail}" + (f"\nnext: {remedy}" if remedy else "")


_NEXT_STEPS: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "pass --token or set ATTESTCTL_TOKEN; `attest-verifier tokens create --scope operator`"
    " on the verifier's machine makes one",
    HTTPStatus.FORBIDDEN: "use a token with the scope that is named; `attest-verifier tokens create --scope SCOPE`"
    " makes one",
}
"""Where what to do is something else on this command line than it is for programs."""


def path_of(*parts: str) -> str:
    """A path from parts that may hold anything."""
    return "/" + "/".join(quote(part, safe="") for part in parts)
