"""What ends up in the log when strangers knock: one line, and none of their bytes."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging

import pytest

from verifier.logs import configure_logs

SECRET = "vta1.this-was-meant-for-a-header"


@pytest.mark.parametrize(
    "request_bytes",
    [
        f"{SECRET}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: v\r\nAuthorization: Bearer {SECRET}{'a' * 9000}\r\n\r\n".encode(),
        f"POST /v1/challenges HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n".encode(),
    ],
)
async def test_what_is_not_http_is_one_line_without_its_bytes(verifier, log, request_bytes):
    port = int(verifier.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes)
    status = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    assert b" 400 " in status
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in lines if line["level"] in {"warning", "error"}] == []
    assert SECRET not in log.getvalue()


async def test_libraries_log_in_the_same_form(verifier, log):
    logging.getLogger("some.package").warning("disk %s is slow", "sda")
    line = json.loads(log.getvalue().splitlines()[-1])
    assert (line["event"], line["level"]) == ("disk sda is slow", "warning")


async def test_a_log_that_cannot_be_written_is_no_reason_to_refuse_anybody(verifier):
    """A full disk, a pipe whose reader is gone, a stream that was closed: what is asked is answered as ever."""

    class Full(io.StringIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed):
        configure_logs("json", "debug", stream)
        logging.getLogger("some.package").warning("disk %s is full", "sda")
        guest = await verifier.guest()
        assert (await guest.attest()).status == 200
    answer = await verifier.post("/v1/attestations", {})
    assert (answer.status, answer.code) == (400, "malformed-request")


def test_a_process_without_stderr_has_no_log(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    configure_logs("auto", "info")
    logging.getLogger("some.package").error("nobody reads this")
