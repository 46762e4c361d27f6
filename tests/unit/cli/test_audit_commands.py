"""`attestctl audit proof | checkpoint | verify | witness`: a log that grows is believed, any other one is not."""

from __future__ import annotations

import json
import stat

import pytest

from tests.unit.transparency.test_entries import AUDIT, VERDICT
from tests.unit.transparency.test_notes import key_of
from tests.unit.transparency.test_tiles import Kept
from verifier.cli import attestctl
from verifier.cli.remote import HttpError, Remote, UnreachableError
from verifier.transparency import checkpoint, cosignature, entries, merkle, tiles
from verifier.transparency.bundle import Bundle, Consistency
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.notes import KeySigner, Note, VerifierKey

TAMPERED, DATA, UNAVAILABLE = 2, 65, 69
WITNESS = "witness.example/1"


class Log:
    """A verifier's log, as its routes answer."""

    def __init__(self, signer: KeySigner) -> None:
        self.signer = signer
        self.entries: list[bytes] = []
        self.kept = Kept()
        self.cosigned: list[str] = []
        self.down = False

    def grow(self, count: int = 1, actor: str = "tok-1") -> None:
        for _ in range(count):
            number = len(self.entries)
            if number % 3:
                entry = entries.audit_entry({**AUDIT, "actor": actor, "subject": f"x-{number}"})
            else:
                entry = entries.verdict_entry({**VERDICT, "sequence": number, "policy_id": actor})
            self.entries.append(entry)
            self.root = self.kept.append(merkle.leaf_hash(entry))

    def note(self) -> str:
        state = Checkpoint(self.signer.key.name, self.kept.size, self.root)
        return checkpoint.sign(state, [self.signer])

    def get(self, path, query=None, *, accept="application/json"):
        if self.down:
            raise UnreachableError("cannot reach it")
        if path == "/v1/log/checkpoint":
            assert accept == "text/plain"
            return self.note()
        if path == "/v1/log/proof/consistency":
            old, new = query["from"], query["to"]
            proof = () if new > self.kept.size else tiles.consistency(old, new, self.kept.read)
            return json.loads(Consistency(old, new, proof).encode())
        index = query["audit"] if query["audit"] is not None else query["sequence"]
        if index is None or index >= self.kept.size:
            raise HttpError(404, "404 not-found: no such entry")
        proof = tiles.inclusion(index, self.kept.size, self.kept.read)
        return json.loads(Bundle(self.entries[index], index, proof, self.note()).encode())

    def upload(self, path, content, media_type, query=None):
        assert (path, media_type) == ("/v1/log/cosignatures", "text/plain")
        self.cosigned.append(content.decode())


@pytest.fixture
def log(monkeypatch, tmp_path) -> Log:
    made = Log(key_of(1))
    made.grow(20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTESTCTL_SERVER", "https://verifier.example:8443")
    monkeypatch.setenv("ATTESTCTL_LOG_KEY", made.signer.key.encode())
    monkeypatch.setattr(Remote, "get", lambda _, *given, **named: made.get(*given, **named))
    monkeypatch.setattr(Remote, "upload", lambda _, *given, **named: made.upload(*given, **named))
    return made


@pytest.fixture
def call(capsys):
    """`attestctl audit …`: exit code, stdout, stderr."""

    def calling(*words: str):
        with pytest.raises(SystemExit) as left:
            attestctl.main(["audit", *words])
        return left.value.code, *capsys.readouterr()

    return calling


# --- proofs


def test_a_proof_is_fetched_and_checked_without_the_verifier(log, call, tmp_path):
    code, out, err = call("proof", "att-1", "--sequence", "6", "--out", "proof.json")
    assert code == 0, err
    assert "leaf 6 of 20" in out
    log.down = True
    code, out, _ = call("verify", "proof.json")
    assert code == 0
    for part in (
        "leaf 6 of 20 of log.example/1",
        "kind: verdict/1",
        "sequence: 6",
        "judged_at: 2023-11-14T22:13:20Z",
    ):
        assert part in out
    found = json.loads(call("verify", "proof.json", "--json")[1])
    assert found["ok"]
    assert found["proofs"][0]["entry"]["evidence_sha256"] == VERDICT["evidence_sha256"].hex()


def test_a_proof_of_a_decision_goes_to_stdout(log, call, tmp_path):
    code, out, _ = call("proof", "--decision", "7")
    assert code == 0
    (tmp_path / "p.json").write_text(out)
    assert json.loads(call("verify", "p.json", "--json")[1])["proofs"][0]["entry"]["subject"] == "x-7"


def test_a_proof_that_does_not_hold_is_not_written(log, call, tmp_path):
    log.entries[6] = log.entries[6].replace(b'"tier":2', b'"tier":0')
    code, out, err = call("proof", "att-1", "--sequence", "6", "--out", "proof.json")
    assert (code, out) == (TAMPERED, "")
    assert "another root" in err
    assert not (tmp_path / "proof.json").exists()


def test_a_proof_that_was_changed_since_is_refused(log, call, tmp_path):
    call("proof", "att-1", "--sequence", "6", "--out", "good.json")
    call("proof", "att-1", "--sequence", "3", "--out", "bad.json")
    content = (tmp_path / "bad.json").read_text()
    (tmp_path / "bad.json").write_text(content.replace('\\"tier\\":2', '\\"tier\\":0'))
    code, out, _ = call("verify", "good.json", "bad.json")
    assert code == TAMPERED
    assert "leaf 6 of 20" in out
    assert "bad.json: the proof leads from leaf 3 to another root" in out
    found = json.loads(call("verify", "good.json", "bad.json", "--json")[1])
    assert [each["ok"] for each in found["proofs"]] == [True, False]


def test_a_proof_of_another_log_than_the_kept_one_is_refused(log, call, tmp_path):
    call("checkpoint", "--keep", "kept.txt")
    other = Log(log.signer)
    other.grow(20, actor="tok-2")
    bundle = Bundle(other.entries[3], 3, tiles.inclusion(3, 20, other.kept.read), other.note())
    (tmp_path / "proof.json").write_bytes(bundle.encode())
    assert call("verify", "proof.json")[0] == 0, "the key alone cannot tell"
    code, out, _ = call("verify", "proof.json", "--checkpoint", "kept.txt")
    assert code == TAMPERED
    assert "another log of 20 leaves than the one kept" in out


def test_a_proof_is_held_against_a_kept_checkpoint_where_the_verifier_can_be_asked(log, call, tmp_path):
    call("checkpoint", "--keep", "kept.txt")
    log.grow(10)
    assert (
        call("proof", "att-1", "--sequence", "6", "--checkpoint", "kept.txt", "--out", "proof.json")[0] == 0
    )
    code, out, _ = call("verify", "proof.json", "--checkpoint", "kept.txt")
    assert (code, "only the verifier can prove" in out) == (TAMPERED, True), (
        "what nobody proved does not pass"
    )
    rewritten(log)
    code, _, err = call(
        "proof", "att-1", "--sequence", "6", "--checkpoint", "kept.txt", "--out", "other.json"
    )
    assert (code, "does not begin with the 20 leaves" in err) == (TAMPERED, True)
    assert not (tmp_path / "other.json").exists()


def test_a_quorum_of_witnesses_can_be_demanded(log, call, tmp_path):
    call("witness-key", WITNESS, "--out", "w.key")
    key = KeySigner.parse((tmp_path / "w.key").read_text()).key
    public = VerifierKey(key.name, 4, key.public).encode()
    call("proof", "att-1", "--sequence", "6", "--out", "proof.json")
    code, out, _ = call("verify", "proof.json", "--witness", public)
    assert (code, "0 of the witnesses have cosigned" in out) == (TAMPERED, True)
    call("witness", "--witness-key", "w.key", "--state", "seen.txt")
    bundle = Bundle.parse((tmp_path / "proof.json").read_bytes())
    (tmp_path / "proof.json").write_bytes(
        Bundle(bundle.entry, bundle.index, bundle.proof, log.cosigned[0]).encode()
    )
    assert call("verify", "proof.json", "--witness", public)[0] == 0
    assert call("verify", "proof.json", "--witness", public, "--quorum", "2")[0] == DATA


# --- checkpoints


def test_a_checkpoint_is_kept_as_long_as_the_log_only_grows(log, call, tmp_path):
    kept = tmp_path / "kept.txt"
    assert call("checkpoint", "--keep", "kept.txt") == (
        0,
        "log.example/1: 20 leaves, the first one kept\n",
        "",
    )
    log.grow(300)
    assert call("checkpoint", "--keep", "kept.txt")[1] == (
        "log.example/1: 320 leaves, grown out of the 20 leaves kept before\n"
    )
    assert kept.read_text() == log.note()
    found = json.loads(call("checkpoint", "--keep", "kept.txt", "--json")[1])
    assert (found["size"], found["kept"], found["root"]) == (320, 320, log.root.hex())
    assert call("checkpoint") == (0, log.note(), "")


def rewritten(log: Log) -> None:
    """The same key, another past."""
    size = log.kept.size
    log.__init__(log.signer)
    log.grow(size + 30, actor="tok-2")


def shrunk(log: Log) -> None:
    size = log.kept.size
    log.__init__(log.signer)
    log.grow(size - 5)


def forked(log: Log) -> None:
    size = log.kept.size
    log.__init__(log.signer)
    log.grow(size, actor="tok-2")


REWRITTEN = {
    rewritten: "the log does not begin with the 20 leaves it had: they were changed or dropped",
    shrunk: "the log has shrunk, from 20 leaves to 15",
    forked: "two roots for the same 20 leaves",
}


@pytest.mark.parametrize("how", REWRITTEN, ids=lambda how: how.__name__)
def test_a_log_that_was_rewritten_is_not_kept(log, call, tmp_path, how):
    call("checkpoint", "--keep", "kept.txt")
    before = (tmp_path / "kept.txt").read_text()
    how(log)
    code, out, err = call("checkpoint", "--keep", "kept.txt")
    assert (code, out) == (TAMPERED, "")
    assert REWRITTEN[how] in err
    assert (tmp_path / "kept.txt").read_text() == before


def test_another_key_is_no_proof_at_all(log, call, tmp_path):
    call("checkpoint", "--keep", "kept.txt")
    log.signer = key_of(2)
    code, _, err = call("checkpoint", "--keep", "kept.txt")
    assert (code, "not signed with log.example/1+" in err) == (DATA, True)
    (tmp_path / "keys").write_text(f"# old, new\n{key_of(1).key.encode()}\n{key_of(2).key.encode()}\n")
    assert call("checkpoint", "--keep", "kept.txt", "--key", "keys")[0] == 0


# --- witnesses


@pytest.fixture
def witness(log, call, tmp_path) -> VerifierKey:
    code, out, _ = call("witness-key", WITNESS, "--out", "w.key")
    assert code == 0
    assert stat.S_IMODE((tmp_path / "w.key").stat().st_mode) == 0o600
    assert call("witness-key", WITNESS, "--out", "w.key")[0] == DATA, "a key is never written over"
    return VerifierKey.parse(out)


LOOK = ("witness", "--witness-key", "w.key", "--state", "seen.txt")


def test_a_witness_signs_what_grew_and_remembers_it_first(log, call, witness, tmp_path):
    assert call(*LOOK)[1] == "cosigned log.example/1: 20 leaves (the first one seen)\n"
    log.grow(10)
    assert json.loads(call(*LOOK, "--json")[1])["before"] == 20
    for sent, size in zip(log.cosigned, (20, 30), strict=True):
        note = Note.parse(sent)
        assert checkpoint.opened(note.encode(), [log.signer.key]).checkpoint.size == size
        (found,) = cosignature.cosigned(note, [witness])
        assert found.at > 1_700_000_000
    assert (tmp_path / "seen.txt").read_text() == log.cosigned[-1]


@pytest.mark.parametrize("how", REWRITTEN, ids=lambda how: how.__name__)
def test_a_witness_never_signs_what_did_not_grow(log, call, witness, tmp_path, how):
    call(*LOOK)
    how(log)
    for _ in range(2):
        code, _, err = call(*LOOK)
        assert (code, log.cosigned) == (TAMPERED, [])
        assert f"not signed: {REWRITTEN[how]}" in err
        assert Checkpoint.parse(Note.parse((tmp_path / "seen.txt").read_text()).text).size == 20


def test_a_witness_whose_state_was_lost_or_damaged_says_so(log, call, witness, tmp_path):
    (tmp_path / "seen.txt").write_text("no checkpoint")
    code, _, err = call(*LOOK)
    assert (code, "seen.txt: no signed note" in err, log.cosigned) == (DATA, True, [])


def test_a_witness_that_cannot_reach_the_verifier_says_so(log, call, witness):
    log.down = True
    assert call(*LOOK)[0] == UNAVAILABLE


# --- called wrongly

WRONG = [
    (["verify"], "name either proofs or, with --database, a database"),
    (
        ["verify", "a.json", "--database", "sqlite:///x.db"],
        "name either proofs or, with --database, a database",
    ),
    (["verify", "gone.json"], "gone.json: No such file"),
    (["verify", "w.key"], "no proof of an entry of a log"),
    (["verify", "gone.json", "--key", "gone.vkey"], "gone.vkey: No such file"),
    (["verify", "gone.json", "--key", "a+b"], "'a+b' is no verifier key"),
    (["verify", "gone.json", "--checkpoint", "gone.txt"], "gone.txt: No such file"),
    (["verify", "gone.json", "--checkpoint", "w.key"], "w.key: no signed note"),
    (["proof"], "name either an attester or, with --decision, a decision"),
    (["witness", "--witness-key", "gone", "--state", "s"], "gone: No such file"),
    (
        ["witness", "--witness-key", "w.key", "--state", "s", "--every", "soon"],
        "--every: 'soon' is not a duration",
    ),
    (["witness-key", "two words", "--out", "x"], "'two words' is no name of a key"),
]


@pytest.mark.parametrize(
    ("words", "why"), WRONG, ids=lambda case: " ".join(case) if isinstance(case, list) else None
)
def test_what_is_called_wrongly_is_said(log, call, witness, words, why):
    code, out, err = call(*words)
    assert code >= 64
    assert out == ""
    assert why in err


def test_without_the_logs_key_nothing_is_believed(log, call, monkeypatch):
    monkeypatch.delenv("ATTESTCTL_LOG_KEY")
    code, _, err = call("checkpoint")
    assert (code, "attest-verifier keys log" in err) == (DATA, True)
