"""Signed notes, checkpoints and cosignatures: known notes of other implementations, and what is refused."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from verifier.transparency import checkpoint, cosignature, notes
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.errors import CheckpointError, NoteError
from verifier.transparency.notes import Algorithm, KeySigner, Note, VerifierKey

# Go's golang.org/x/mod/sumdb/note: the key pair and the note of its documentation.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_NOTE = GO_TEXT + (
    "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# transparency-dev's witness tests: the log `monkeys`, and a witness.
LOG_KEY = "monkeys+db4d9f7e+AULaJMvTtDLHPUcUrjdDad9vDlh/PTfC2VV60JUtCfWT"
LOG_PRIVATE = "PRIVATE+KEY+monkeys+db4d9f7e+ATWIAF3yVBG+Hv1rZFQoNt/BaURkLPtOFMAM2HrEeIr6"
LOG_NOTE = (
    "monkeys\n5\n41smjBUiAU70EtKlT6lIOIYtRTYxYXsDB+XHfcvu/BE=\n\n— monkeys"
    " 202fftzGl3LVoqjXfwCFZZXs8I+5G22+Ek2K0AOyBuSJ/8/CZawNF+6fNlTKOCd622pbzJNkkJFWuw9DbicZCkEx9AY=\n"
)
LOG_ROOT = bytes.fromhex("e35b268c1522014ef412d2a54fa94838862d453631617b0307e5c77dcbeefc11")
WITNESS_PRIVATE = "PRIVATE+KEY+witness+f13a86db+AaLa/dfyBhyo/m0Z7WCi98ENVZWtrP8pxgRNrx7tIWiA"
# sum.golang.org, as it signed in public.
SUMDB_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
SUMDB_NOTE = (
    "go.sum database tree\n6476701\nmb8QLQIs0Z0yP5Cstq6guj87oXWeC9gEM8oVikmm9Wk=\n\n— sum.golang.org"
    " Az3grsLX85Gz+s1SiTbgkuqxgItqFq7gsMUEyVnrsa9LM7Us9S+1xbFIGu95949rj4nPRYfvimWEPWL+o3GeoWwOoAw=\n"
)


def key_of(number: int, name: str = "log.example/1", algorithm: Algorithm = Algorithm.ED25519) -> KeySigner:
    seed = hashlib.sha256(number.to_bytes(8)).digest()
    return KeySigner(name, Ed25519PrivateKey.from_private_bytes(seed), algorithm)


def test_a_note_of_go_holds_and_is_written_the_same() -> None:
    key = VerifierKey.parse(GO_KEY)
    note = Note.parse(GO_NOTE.encode())
    assert note.text == GO_TEXT
    assert note.signers([key]) == (key,)
    assert notes.signed(GO_TEXT, [KeySigner.parse(GO_PRIVATE)]).encode() == GO_NOTE
    assert key.encode() == GO_KEY
    assert KeySigner.parse(GO_PRIVATE).encode() == GO_PRIVATE


def test_a_checkpoint_of_another_implementation_holds_and_is_written_the_same() -> None:
    opened = checkpoint.opened(LOG_NOTE, [VerifierKey.parse(LOG_KEY)])
    assert opened.checkpoint == Checkpoint("monkeys", 5, LOG_ROOT)
    assert checkpoint.sign(opened.checkpoint, [KeySigner.parse(LOG_PRIVATE)]) == LOG_NOTE


def test_a_log_that_signs_under_another_name_than_its_origin_is_not_taken_for_that_log() -> None:
    key = VerifierKey.parse(SUMDB_KEY)
    assert Note.parse(SUMDB_NOTE).signers([key]) == (key,)
    assert checkpoint.read_only(SUMDB_NOTE).size == 6476701
    with pytest.raises(CheckpointError, match=r"of the log 'go.sum database tree', signed with the key of"):
        checkpoint.opened(SUMDB_NOTE, [key])


def test_a_changed_character_is_noticed() -> None:
    for at, character in enumerate(LOG_NOTE):
        changed = LOG_NOTE[:at] + ("A" if character != "A" else "B") + LOG_NOTE[at + 1 :]
        with pytest.raises(NoteError):
            checkpoint.opened(changed, [VerifierKey.parse(LOG_KEY)])


def test_old_and_new_key_sign_while_keys_change() -> None:
    old, new, other = key_of(1), key_of(2), key_of(3)
    note = checkpoint.sign(Checkpoint("log.example/1", 7, LOG_ROOT), [old, new])
    for trusted in ([old.key], [new.key], [other.key, new.key]):
        assert checkpoint.opened(note, trusted).signed_by == (trusted[-1],)
    assert checkpoint.opened(note, [old.key, new.key]).signed_by == (old.key, new.key)
    with pytest.raises(NoteError, match=r"not signed with log.example/1\+[0-9a-f]{8}; the signatures are of"):
        checkpoint.opened(note, [other.key])
    with pytest.raises(NoteError, match="not signed with no key"):
        checkpoint.opened(note, [])


def test_a_false_signature_of_a_trusted_key_spoils_the_note() -> None:
    old, new = key_of(1), key_of(2)
    good = notes.signed("a\n", [old, new])
    wrong = notes.signed("b\n", [old])
    with pytest.raises(NoteError, match="does not hold"):
        Note("a\n", good.signatures + wrong.signatures).signers([old.key, new.key])
    # Of a key that nobody trusts it means nothing.
    assert Note("a\n", good.signatures + wrong.signatures).signers([new.key]) == (new.key,)


def test_the_same_key_under_another_name_is_another_key() -> None:
    here, there = key_of(1, "here"), key_of(1, "there")
    assert here.key.key_id != there.key.key_id
    with pytest.raises(NoteError, match="not signed with there"):
        notes.signed("a\n", [here]).signers([there.key])


BAD_NOTES = {
    "empty": b"",
    "no-signatures": b"text\n",
    "nothing-signed": b"text\n\n",
    "no-newline": b"text\n\n\xe2\x80\x94 a AAAAAAE=",
    "hyphen": b"text\n\n- a AAAAAAE=\n",
    "no-base64": b"text\n\n\xe2\x80\x94 a !!!!\n",
    "bits-that-mean-nothing": b"text\n\n\xe2\x80\x94 a AAAAAAF=\n",
    "only-an-id": b"text\n\n\xe2\x80\x94 a AAAAAA==\n",
    "name-with-plus": b"text\n\n\xe2\x80\x94 a+b AAAAAAE=\n",
    "two-spaces": b"text\n\n\xe2\x80\x94 a  AAAAAAE=\n",
    "carriage-return": b"text\r\n\n\xe2\x80\x94 a AAAAAAE=\n",
    "tab": b"te\txt\n\n\xe2\x80\x94 a AAAAAAE=\n",
    "no-utf-8": b"text\xff\n\n\xe2\x80\x94 a AAAAAAE=\n",
    "too-many": b"text\n\n" + b"\xe2\x80\x94 a AAAAAAE=\n" * 101,
    "too-large": b"a" * (notes.MAX_NOTE + 1),
}


@pytest.mark.parametrize("case", BAD_NOTES)
def test_what_is_no_note(case: str) -> None:
    with pytest.raises(NoteError):
        Note.parse(BAD_NOTES[case])


def test_a_text_may_have_empty_lines_and_letters_of_all_kinds() -> None:
    text = "Ognuno sta solo\n\ned è subito sera.\n"
    note = notes.signed(text, [key_of(1)])
    assert Note.parse(note.encode()) == note
    with pytest.raises(NoteError, match="ends with a newline"):
        notes.signed("a", [key_of(1)])
    with pytest.raises(NoteError, match="control"):
        notes.signed("a\tb\n", [key_of(1)])
    with pytest.raises(NoteError, match="UTF-8"):
        Note.parse("\ud800\n\n— a AAAAAAE=\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PeterNeumann",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("c74f20a3", "C74F20A3"),
        GO_KEY[:-4],
        GO_KEY + "=",
        GO_KEY.replace("+AR", "+AB"),
        "Peter Neumann" + GO_KEY.removeprefix("PeterNeumann"),
        GO_PRIVATE,
        "a+00000000+",
    ],
)
def test_what_is_no_verifier_key(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        GO_KEY,
        "",
        GO_PRIVATE[:-4],
        GO_PRIVATE.replace("c74f20a3", "c74f20a4"),
        GO_PRIVATE.replace("+AYE", "+AoE"),
    ],
)
def test_what_is_no_private_key(text: str) -> None:
    with pytest.raises(NoteError) as error:
        KeySigner.parse(text)
    assert "FALVFGyNhPJEMzD1QIDr" not in str(error.value)


BAD_CHECKPOINTS = {
    "two-lines": "log\n5\n",
    "no-origin": f"\n5\n{base64.b64encode(LOG_ROOT).decode()}\n",
    "empty-line": f"log\n5\n{base64.b64encode(LOG_ROOT).decode()}\n\nx\n",
    "leading-zero": f"log\n05\n{base64.b64encode(LOG_ROOT).decode()}\n",
    "negative": f"log\n-5\n{base64.b64encode(LOG_ROOT).decode()}\n",
    "other-digits": f"log\n\u0665\n{base64.b64encode(LOG_ROOT).decode()}\n",
    "too-many-leaves": f"log\n{1 << 63}\n{base64.b64encode(LOG_ROOT).decode()}\n",
    "short-root": f"log\n5\n{base64.b64encode(LOG_ROOT[:-1]).decode()}\n",
    "no-base64": "log\n5\n?\n",
    "no-newline": f"log\n5\n{base64.b64encode(LOG_ROOT).decode()}",
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_what_is_no_checkpoint(case: str) -> None:
    with pytest.raises(CheckpointError):
        Checkpoint.parse(BAD_CHECKPOINTS[case])


def test_extensions_are_kept_and_signed() -> None:
    state = Checkpoint("log.example/1", 0, LOG_ROOT, ("one", "two"))
    signer = key_of(1)
    opened = checkpoint.opened(checkpoint.sign(state, [signer]), [signer.key])
    assert opened.checkpoint == state


def test_a_cosignature_says_when_and_is_made_as_specified() -> None:
    """The message and the line as c2sp.org/tlog-cosignature has them, put together by hand."""
    witness = KeySigner.parse(WITNESS_PRIVATE, Algorithm.COSIGNATURE_V1)
    note = Note.parse(LOG_NOTE)
    signature = cosignature.cosign(note.text, witness, 1679315147)
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(WITNESS_PRIVATE.rpartition("+")[2])[1:])
    key_id = hashlib.sha256(b"witness\n\x04" + private.public_key().public_bytes_raw()).digest()[:4]
    message = b"cosignature/v1\ntime 1679315147\n" + note.text.encode()
    blob = base64.b64encode(key_id + (1679315147).to_bytes(8) + private.sign(message)).decode()
    assert signature.line() == f"— witness {blob}\n"
    cosigned = Note.parse(LOG_NOTE + signature.line())
    (found,) = cosignature.cosigned(cosigned, [witness.key])
    assert (found.witness, found.at) == (witness.key, 1679315147)
    # Neither the log's own signature nor those of other witnesses are touched by it.
    assert checkpoint.opened(cosigned.encode(), [VerifierKey.parse(LOG_KEY)]).checkpoint.size == 5
    other = key_of(4, "other", Algorithm.COSIGNATURE_V1)
    assert cosignature.cosigned(cosigned, [other.key]) == ()


def test_the_latest_cosignature_of_a_witness_counts() -> None:
    witness = key_of(4, "witness", Algorithm.COSIGNATURE_V1)
    lines = [cosignature.cosign("a\n", witness, at) for at in (5, 9, 7)]
    (found,) = cosignature.cosigned(Note("a\n", tuple(lines)), [witness.key])
    assert found.at == 9


def test_a_cosignature_of_another_text_or_time_does_not_hold() -> None:
    witness = key_of(4, "witness", Algorithm.COSIGNATURE_V1)
    good = cosignature.cosign("a\n", witness, 5)
    later = notes.Signature(good.name, good.key_id, (6).to_bytes(8) + good.value[8:])
    never = notes.Signature(good.name, good.key_id, (1 << 63).to_bytes(8) + good.value[8:])
    short = notes.Signature(good.name, good.key_id, good.value[:8])
    for text, signature in (("b\n", good), ("a\n", later), ("a\n", never), ("a\n", short)):
        with pytest.raises(NoteError, match="does not hold"):
            cosignature.cosigned(Note(text, (signature,)), [witness.key])
    with pytest.raises(NoteError, match="no time"):
        cosignature.cosign("a\n", witness, -1)


def test_keys_of_logs_and_of_witnesses_are_not_taken_for_each_other() -> None:
    log, witness = key_of(4, "same"), key_of(4, "same", Algorithm.COSIGNATURE_V1)
    assert log.key.key_id != witness.key.key_id
    with pytest.raises(NoteError, match="of a log, not of a witness"):
        cosignature.cosign("a\n", log, 5)
    with pytest.raises(NoteError, match="of a log, not of a witness"):
        cosignature.cosigned(notes.signed("a\n", [log]), [log.key])
    with pytest.raises(NoteError, match="of a witness, not of a log"):
        notes.signed("a\n", [log]).signers([witness.key])
