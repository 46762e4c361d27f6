"""One kept-alive HTTPS connection, as thin as can be: the load generator's own cost must not hide the verifier's."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

MSGPACK = "application/msgpack"


class UnavailableError(Exception):
    """The connection broke, or nobody listens."""


@dataclass
class Connection:
    """HTTP/1.1 over TLS; reconnects when asked again after it broke. Counts the bytes of bodies and heads."""

    url: str
    tls: ssl.SSLContext
    sent: int = 0
    received: int = 0
    connects: int = 0
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, repr=False)

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, dict[str, str], bytes]:
        """A message in MessagePack. Status, headers (lower case) and body of the answer."""
        said = {"Content-Type": MSGPACK, "Accept": MSGPACK} | headers
        return await self._ask(f"POST {path} HTTP/1.1\r\n{_lines(said)}", body)

    async def get(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """The same of a GET."""
        return await self._ask(f"GET {path} HTTP/1.1\r\n{_lines(headers)}", b"")

    async def _ask(self, first: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """One exchange. A kept connection that the other side has closed is replaced, once, as the agent does."""
        reused = self._streams is not None
        try:
            return await self._exchange(first, body)
        except UnavailableError:
            if not reused:
                raise
        return await self._exchange(first, body)

    async def _exchange(self, first: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        host = urlsplit(self.url).netloc
        head = f"{first}Host: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        try:
            reader, writer = await self._open()
            writer.write(head + body)
            self.sent += len(head) + len(body)
            raw = await reader.readuntil(b"\r\n\r\n")
            lines = raw.decode("latin-1").split("\r\n")
            headers = {
                k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)
            }
            bare = lines[0].split()[1] == "304"
            content = b"" if bare else await reader.readexactly(int(headers.get("content-length", "0")))
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError) as error:
            self.close()
            raise UnavailableError(str(error)) from error
        self.received += len(raw) + len(content)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(lines[0].split()[1]), headers, content

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            split = urlsplit(self.url)
            self._streams = await asyncio.open_connection(
                split.hostname, split.port, ssl=self.tls, limit=1 << 20
            )
            self.connects += 1
        return self._streams

    def close(self) -> None:
        """Without ceremony."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
