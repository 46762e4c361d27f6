"""systemd's log as the agent reads it, and the NvPCRs that it certifies for it."""

from __future__ import annotations

import fcntl
import hashlib
import threading

import pytest

from agent.collect import linux
from agent.collect.linux import USERSPACE_LOG, LinuxSources
from agent.errors import TpmBusyError, TpmError
from agent.tpm import Quote
from agent.userspace import named_indices
from agent.wire.limits import MAX_NVPCRS, MAX_USERSPACE_LOG
from agent.wire.messages import AttestationRequest
from tests.fake_verifier import FakeVerifier
from tests.simulator import SoftwareTpm
from tests.unit.agent.test_service import CA, Bench, Goal
from tests.userspace import CRYPTSETUP, HARDWARE, Systemd, record
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import parse_attest
from verifier.tcg.nv import parse_nv_public

SHA256 = HashAlg.SHA256


@pytest.fixture
def bench(tmp_path):
    with FakeVerifier(tmp_path, CA) as verifier:
        yield Bench(tmp_path, verifier)


@pytest.fixture
def systemd(bench):
    made = Systemd(bench.machine).boot(encrypted=True)
    write(bench.folder, made.log)
    return made


def write(root, content):
    path = root / USERSPACE_LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def collect(root):
    return LinuxSources(root).collect(agent_version="1")


# --- the collector


def test_the_log_is_sent_as_it_is_and_its_absence_is_nothing_to_remark_on(tmp_path):
    absent = collect(tmp_path)
    assert absent.userspace_log is None
    assert not any("tpm2-measure" in note for note in absent.notes)
    write(tmp_path, b"\x1e{}\n")
    assert collect(tmp_path).userspace_log == b"\x1e{}\n"


def test_reading_waits_for_a_writer_that_has_extended_and_not_yet_written(tmp_path):
    path = write(tmp_path, b"one\n")
    writer = path.open("ab", buffering=0)
    fcntl.flock(writer, fcntl.LOCK_EX)

    def finish():
        writer.write(b"two\n")
        writer.close()

    timer = threading.Timer(0.1, finish)
    timer.start()
    try:
        found = collect(tmp_path)
    finally:
        timer.join()
    assert found.userspace_log == b"one\ntwo\n"
    assert not any("lock" in note for note in found.notes)


def test_a_lock_that_is_never_given_up_does_not_keep_the_agent(tmp_path, monkeypatch):
    monkeypatch.setattr(linux, "_LOCK_TRIES", 3)
    path = write(tmp_path, b"one\n")
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        found = collect(tmp_path)
    assert found.userspace_log == b"one\n"
    assert any("lock" in note for note in found.notes)


def test_systemds_mark_of_an_unfinished_record_is_told(tmp_path):
    path = write(tmp_path, b"one\n")
    path.chmod(0o1600)
    assert any("lacks a record" in note for note in collect(tmp_path).notes)


def test_a_log_that_is_too_long_is_left_out_with_a_note(tmp_path):
    write(tmp_path, b"x" * (MAX_USERSPACE_LOG + 1))
    found = collect(tmp_path)
    assert found.userspace_log is None
    assert any("longer" in note for note in found.notes)


# --- which indices it names


def test_indices_are_those_that_were_started_or_extended():
    systemd = Systemd(SoftwareTpm(1)).boot(encrypted=True)
    assert named_indices(systemd.log) == [HARDWARE, CRYPTSETUP]
    assert named_indices(systemd.log.replace(b"\x1e", b"")) == [HARDWARE, CRYPTSETUP]
    assert named_indices(systemd.log[:-30]) == [HARDWARE, CRYPTSETUP]


@pytest.mark.parametrize(
    "log",
    [
        b"",
        b"\x1e",
        b"\xff\xfe\n",
        b"[]\n",
        b'{"nv_index":"x"}\n',
        b'{"nv_index":true}\n',
        b'{"content":7,"nv_index":null}\n',
        b'{"nv_index":2164260865}\n',
        b'{"content":{"string":["nvpcr-init:a:0x1d10200:"]}}\n',
        b"[" * 100_000,
    ],
)
def test_anything_else_names_none(log):
    assert named_indices(log) == []


def test_no_more_indices_are_certified_than_a_verifier_takes():
    many = b"".join(b'\x1e{"nv_index":%d}\n' % (HARDWARE + n) for n in range(MAX_NVPCRS + 5))
    assert named_indices(many) == list(range(HARDWARE, HARDWARE + MAX_NVPCRS))


# --- what goes over the wire


def test_the_log_and_certificates_over_the_nonce_of_the_quote_are_sent(bench, systemd):
    bench.go(Goal.VERDICT)
    (request,) = bench.verifier.sent(AttestationRequest)
    assert request.userspace_log.content == systemd.log
    publics = [parse_nv_public(one.public) for one in request.nvpcrs]
    assert [public.handle for public in publics] == [HARDWARE, CRYPTSETUP]
    for public, one in zip(publics, request.nvpcrs, strict=True):
        attest = parse_attest(one.attest)
        assert (attest.extra_data, attest.index_name) == (request.nonce, public.name)
        assert attest.contents == bench.machine.nv_index(public.handle).value


def test_a_log_the_verifier_holds_is_named_by_digest_until_it_grows(bench, systemd):
    def grow(number):
        if number == 2:
            systemd.phase("shutdown")
            write(bench.folder, systemd.log)

    bench.on_pause = grow
    bench.go(Goal.FOREVER)
    sent = [request.userspace_log for request in bench.verifier.sent(AttestationRequest)][:4]
    assert sent[0].content is not None
    assert (sent[1].content, sent[1].sha256) == (None, hashlib.sha256(sent[0].content).digest())
    assert sent[2].content == systemd.log
    assert sent[3].sha256 == hashlib.sha256(systemd.log).digest()


def test_a_verifier_that_does_not_ask_for_it_is_sent_nothing_of_it(bench, systemd):
    bench.verifier.wants_userspace_log = False
    bench.go(Goal.VERDICT)
    (request,) = bench.verifier.sent(AttestationRequest)
    assert (request.userspace_log, request.nvpcrs) == (None, [])


def test_the_log_that_is_sent_was_read_after_the_indices_were_certified(bench, systemd):
    certify = bench.tpm.nv_certify

    def extended_meanwhile(ak, index, size, qualifying_data):
        if index == CRYPTSETUP:
            systemd.nvpcr_extend(CRYPTSETUP, "cryptsetup-keyslot:data:x:tpm2:0", "keyslot")
            write(bench.folder, systemd.log)
        return certify(ak, index, size, qualifying_data)

    bench.tpm.nv_certify = extended_meanwhile
    bench.go(Goal.VERDICT)
    (request,) = bench.verifier.sent(AttestationRequest)
    assert b"cryptsetup-keyslot:data" in request.userspace_log.content


def test_an_index_that_is_gone_or_refused_is_a_note_and_the_others_are_certified(bench, systemd):
    bench.machine.nv_undefine(HARDWARE)
    bench.go(Goal.VERDICT)
    (request,) = bench.verifier.sent(AttestationRequest)
    assert [parse_nv_public(one.public).handle for one in request.nvpcrs] == [CRYPTSETUP]
    assert any(f"{HARDWARE:#010x}" in line for line in bench.said)

    def refused(*_arguments: object) -> Quote:
        raise TpmError("certifying: no", "none")

    bench.tpm.nv_certify = refused
    bench.go(Goal.VERDICT)
    assert bench.verifier.sent(AttestationRequest)[-1].nvpcrs == []
    assert any("is not certified" in line for line in bench.said)


def test_a_passing_trouble_of_the_tpm_is_no_reason_to_attest_without(bench, systemd):
    certify, troubles = bench.tpm.nv_certify, [TpmBusyError("busy", "wait")]

    def busy_once(*arguments):
        if troubles:
            raise troubles.pop()
        return certify(*arguments)

    bench.tpm.nv_certify = busy_once
    bench.go(Goal.VERDICT)
    (request,) = bench.verifier.sent(AttestationRequest)
    assert len(request.nvpcrs) == 2
    assert len(bench.pauses) == 1


def test_an_index_that_only_calls_itself_an_nvpcr_is_left_alone(bench):
    bench.machine.nv_define_extend(0x01C10000, 0x00060004)
    bench.machine.nv_extend(0x01C10000, bytes(32))
    digest = SHA256.digest(b"x")
    write(bench.folder, record({SHA256: digest}, "x", "x", nv=(0x01C10000, "x")))
    bench.go(Goal.VERDICT)
    (request,) = bench.verifier.sent(AttestationRequest)
    assert request.nvpcrs == []
