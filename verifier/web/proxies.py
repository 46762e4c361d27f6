"""Where a request comes from, where proxies stand in front: by their word, if they are named in the settings."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from aiohttp import web

_FORWARDED: Final = "X-Forwarded-For"


class Proxies:
    """Networks of proxies that are trusted to say for whom they ask.

    Raises:
        ValueError: no network.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(one) for one in networks)

    def behind(self, request: web.Request) -> web.Request:
        """The request as from the client that a trusted proxy names; as it is from anybody else."""
        named = ",".join(request.headers.getall(_FORWARDED, ())).split(",")
        client = self._client(request.remote, [one.strip() for one in named])
        return request if client is None or client == request.remote else request.clone(remote=client)

    def _client(self, peer: str | None, named: list[str]) -> str | None:
        """From the nearest on: the first that no trusted proxy is. What stands before that anybody can have written."""
        client = peer
        while named and self.trusts(client):
            address = named.pop()
            if _parsed(address) is None:
                break
            client = address
        return client

    def trusts(self, address: str | None) -> bool:
        """Whether this is one of them."""
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def _parsed(address: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    # So a socket that listens for both calls those of IPv4.
    return getattr(parsed, "ipv4_mapped", None) or parsed
