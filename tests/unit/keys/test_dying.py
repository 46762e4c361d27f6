"""Death between any two files: whatever was written so far, the next start has keys that work."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from verifier.errors import VerifierFault
from verifier.keys import files
from verifier.keys.ak_ca import AkCa
from verifier.keys.secret import nonce_key
from verifier.keys.signer import FileSigner, rotate
from verifier.keys.tls import own_tls

NOW = datetime.now(UTC)


class DiedError(BaseException):
    """Not an Exception: nothing on the way may tidy up."""


def tls(directory, now=NOW):
    own_tls(directory, ["localhost"], now).context()


def signing(directory, now=NOW):
    signer = FileSigner(directory, lambda: now)
    asyncio.run(signer.sign_jwt({"sub": "a"}))
    assert signer.jwks()["keys"]


def rotated(directory, now=NOW):
    signing(directory, now)
    rotate(directory, timedelta(hours=1), now)
    signing(directory, now)


def renewed(directory, now=NOW):
    tls(directory, now - timedelta(days=80))
    tls(directory, now)


def ak_ca(directory, now=NOW):
    AkCa(directory, lambda: now).authorities()


def ak_ca_renewed(directory, now=NOW):
    ak_ca(directory, now - timedelta(days=3000))
    ak_ca(directory, now)


def secret(directory, now=NOW):
    assert nonce_key(directory)


@pytest.mark.parametrize("work", [tls, renewed, signing, rotated, ak_ca, ak_ca_renewed, secret])
def test_whatever_was_written_before_it_died(tmp_path, monkeypatch, work):
    replace, steps, died = Path.replace, 0, True
    while died:
        directory, left = tmp_path / str(steps), steps

        def dying(self, target):
            nonlocal left
            left -= 1
            if left < 0:
                raise DiedError
            return replace(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", dying)
            try:
                work(directory)
                died = False
            except DiedError:
                steps += 1
        work(directory)
    assert steps >= 1


@pytest.mark.parametrize("work", [tls, signing, ak_ca, secret])
def test_a_full_disk_is_named_and_leaves_nothing_half_done(tmp_path, monkeypatch, work):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        with pytest.raises(VerifierFault, match=r"cannot write .*: No space left on device"):
            work(tmp_path / "state")
    work(tmp_path / "state")


def test_an_index_that_is_in_place_although_its_folder_could_not_be_synchronised_keeps_its_key(
    tmp_path, monkeypatch
):
    signing(tmp_path)
    index, synchronise = tmp_path / "keys.json", os.fsync

    def failing(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) and len(json.loads(index.read_text())) > 1:
            raise OSError(errno.EIO, "Input/output error")
        synchronise(handle)

    monkeypatch.setattr(files.os, "fsync", failing)
    with pytest.raises(VerifierFault, match=r"keys\.json"):
        rotate(tmp_path, timedelta(hours=1), NOW)
    signing(tmp_path)
