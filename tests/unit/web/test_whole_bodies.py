"""A body that came with its head is taken as it came, within the limit, whether or not its length was announced."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request

from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.web.bodies import read_body

BODY = b"twelve bytes"


async def arrived(*pieces: bytes, announced: bool) -> web.Request:
    content = StreamReader(Mock(), 2**16, loop=asyncio.get_running_loop())
    for piece in pieces:
        content.feed_data(piece)
    content.feed_eof()
    headers = (
        {"Content-Length": str(sum(map(len, pieces)))} if announced else {"Transfer-Encoding": "chunked"}
    )
    return make_mocked_request("POST", "/", headers=headers, payload=content)


@pytest.mark.parametrize("announced", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("pieces", [(BODY,), (BODY[:5], BODY[5:])], ids=["one piece", "two pieces"])
async def test_it_is_what_was_sent(pieces, announced):
    assert await read_body(await arrived(*pieces, announced=announced), len(BODY), 1.0) == BODY


@pytest.mark.parametrize("announced", [True, False], ids=["length", "chunked"])
async def test_one_byte_more_than_the_limit_is_too_large(announced):
    with pytest.raises(EvidenceError) as caught:
        await read_body(await arrived(BODY, announced=announced), len(BODY) - 1, 1.0)
    assert caught.value.reason is Reason.BODY_TOO_LARGE
