"""Whose word counts for where a request comes from."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from verifier.web.proxies import Proxies

TRUSTED = Proxies(["10.0.0.0/8", "2001:db8::/32"])


def came(peer, *forwarded):
    headers = CIMultiDict([("X-Forwarded-For", one) for one in forwarded])
    return TRUSTED.behind(make_mocked_request("GET", "/", headers=headers).clone(remote=peer)).remote


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", ["192.0.2.1"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("2001:db8::1", ["2001:db9::5"], "2001:db9::5"),
        ("10.0.0.1", ["192.0.2.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1, junk, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
    ],
)
def test_the_nearest_address_that_no_trusted_proxy_has_is_the_client_s(peer, forwarded, client):
    assert came(peer, *forwarded) == client


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="does not appear to be"):
        Proxies(["proxy.example"])
