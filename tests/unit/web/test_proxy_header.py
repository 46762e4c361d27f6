"""The PROXY protocol: what a balancer says of a connection, whatever else comes, and that nothing after it is taken."""

from __future__ import annotations

import ipaddress
import random
import struct

import pytest

from verifier.web.proxy_header import ProxyHeaderError, read_header

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
HELLO = b"\x16\x03\x01 the client's hello"


def binary(client="192.0.2.7", *, command=0x21, family=None, more=b"", length=None):
    """A header of version 2."""
    address = ipaddress.ip_address(client)
    family = family or (0x11 if address.version == 4 else 0x21)
    body = address.packed + ipaddress.ip_address("10.0.0.9" if address.version == 4 else "::9").packed
    body += struct.pack(">HH", 40000, 443) + more
    return SIGNATURE + struct.pack(">BBH", command, family, len(body) if length is None else length) + body


async def read(content, pieces=None):
    """The address, and what is left for the client's connection."""
    left = bytearray(content)

    async def take(size):
        size = min(size, pieces or size)
        found = bytes(left[:size])
        del left[:size]
        return found

    return await read_header(take), bytes(left)


@pytest.mark.parametrize("pieces", [None, 1, 5])
@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 40000 443\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::9 40000 443\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        (binary(), "192.0.2.7"),
        (binary("2001:db8::7"), "2001:db8::7"),
        (binary(more=b"\x04\x00\x03abc" * 30), "192.0.2.7"),
        (binary(command=0x20), None),
        (binary(family=0x12), None),
        (SIGNATURE + b"\x20\x00\x00\x00", None),
        (SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), None),
    ],
    ids=["v1", "v1 of IPv6", "v1 unknown", "v1 unknown with more", "v2", "v2 of IPv6", "v2 with TLVs", "local", "UDP", "local, empty", "Unix"],
)  # fmt: skip
async def test_the_client_is_read_and_not_a_byte_of_what_it_says(header, client, pieces):
    assert await read(header + HELLO, pieces) == (client, HELLO)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        HELLO,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.9 40000",
        b"PROXY TCP4 192.0.2.7 10.0.0.9 40000 443" + b" " * 100 + b"\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::9 40000 443\r\n",
        b"PROXY TCP6 192.0.2.7 192.0.2.8 40000 443\r\n",
        b"PROXY TCP4 nobody 10.0.0.9 40000 443\r\n",
        b"PROXY TCP4 192.0.2.7\r\n" + HELLO,
        b"PROXY UDP4 192.0.2.7 10.0.0.9 40000 443\r\n",
        b"PROXY  TCP4 192.0.2.7 10.0.0.9 40000 443\r\n",
        b"PROXY \r\n      " + HELLO,
        binary()[:20],
        binary(length=4) + HELLO,
        binary(length=65535) + bytes(70000),
        binary(command=0x22),
        binary(command=0x11),
    ],
)
async def test_whatever_else_comes_is_no_header(content):
    with pytest.raises(ProxyHeaderError):
        await read(content)


async def test_no_bytes_make_it_do_anything_else():
    dice = random.Random(7)
    seeds = [
        binary(more=b"\x04\x00\x01a"),
        binary("2001:db8::7"),
        b"PROXY TCP4 192.0.2.7 10.0.0.9 40000 443\r\n",
    ]
    for _ in range(3000):
        content = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        try:
            client, _ = await read(bytes(content) + HELLO)
        except ProxyHeaderError:
            continue
        assert client is None or ipaddress.ip_address(client)
