"""Runtime sets: one text for each set, read strictly, found exactly."""

from __future__ import annotations

import hashlib
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime_sets import BASH, COREUTILS, SHA256, a_set, entry, many, text_of
from verifier.policy.runtime.entry import DIGEST_KINDS, KIND_OF, Entry, Kind, Source, logged_path
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.reading import read_runtime_set
from verifier.policy.runtime.runtime_set import Head, assemble
from verifier.policy.runtime.text import read, written
from verifier.policy.runtime.writing import digest_of
from verifier.tcg.algorithms import HashAlg

SHA1 = KIND_OF[Kind.FILE, HashAlg.SHA1]
VERITY = KIND_OF[Kind.VERITY, HashAlg.SHA256]
EMPTY = hashlib.sha256(b"").hexdigest()

SMALL = a_set(
    entry("/usr/bin/bash", b"bash", BASH),
    entry("/bin/bash", b"bash", BASH),
    entry("/usr/bin/ls", b"ls", COREUTILS),
    entry("/usr/share/empty", b"", BASH, COREUTILS),
    entry("/init", b"init"),
)
TEXT = text_of(SMALL)


def test_the_text_is_what_the_documentation_says():
    bash, ls, init = (hashlib.sha256(word).hexdigest() for word in (b"bash", b"ls", b"init"))
    assert TEXT.decode() == (
        "vtpm-attest/runtime-set/1\nname test\nsources 2\nentries 5\n"
        "source deb bash 5.2.15-2+b7 amd64\nsource deb coreutils 9.1-1 amd64\n"
        f"sha256:{bash} 0 /bin/bash\nsha256:{init} - /init\nsha256:{bash} 0 /usr/bin/bash\n"
        f"sha256:{ls} 1 /usr/bin/ls\nsha256:{EMPTY} 0,1 /usr/share/empty\n"
    )
    assert digest_of(SMALL) == hashlib.sha256(TEXT).hexdigest()


def test_the_order_of_what_is_put_in_does_not_matter():
    entries = list(SMALL)
    assert text_of(a_set(*reversed(entries))) == TEXT
    assert text_of(a_set(*entries, *entries)) == TEXT


paths = st.binary(min_size=1, max_size=60).map(
    lambda raw: b"/" + raw.replace(b"\0", b"\n").replace(b" ", b"_")
)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda word: word != "-")
sources = st.builds(Source, st.sampled_from(["deb", "rpm", "oci-layer"]), words, words | st.just(""), words)


@st.composite
def entries(draw):
    kind = draw(st.sampled_from(DIGEST_KINDS))
    digest = draw(st.binary(min_size=kind.alg.size, max_size=kind.alg.size))
    return Entry(draw(paths), kind, digest, tuple(draw(st.lists(sources, max_size=3))))


@settings(max_examples=150, deadline=None)
@given(st.lists(entries(), min_size=1, max_size=30), st.integers(1, 50))
def test_what_is_written_is_read_back_equal_however_it_is_cut(found, size):
    whole = assemble(Head(name="any", description="Größe: any"), found)
    text = text_of(whole)
    back = read_runtime_set(text[at : at + size] for at in range(0, len(text), size))
    assert list(back) == list(whole)
    assert (back.head, back.sources) == (whole.head, whole.sources)
    assert text_of(back) == text
    for each in found:
        hit = back.find(each.kind, each.digest, each.path)
        assert hit is not None
        assert set(each.sources) <= set(hit.sources)
        assert each.digest in {other.digest for other in back.at_path(each.path)}
        assert back.find(each.kind, each.digest, each.path + b"x") is None or any(
            other.path == each.path + b"x" for other in found
        )


@given(st.binary(max_size=40))
def test_every_word_has_one_way_to_be_written(word):
    text = written(word)
    assert b" " not in text
    assert b"\n" not in text
    text.decode()
    assert read(text) == word


@pytest.mark.parametrize("text", [b"\\x41", b"\\x5C", b"\\", b"a\\q", b"\xff", b"\\xff\xc3\xa9", b"a\x01"])
def test_other_ways_to_write_a_word_are_refused(text):
    with pytest.raises(ValueError, match="one way"):
        read(text)


H = hashlib.sha256(b"bash").hexdigest()
HEAD = b"vtpm-attest/runtime-set/1\nname test\nsources 1\nentries 1\nsource deb bash 5 amd64\n"
ROW = f"sha256:{H} 0 /bin/bash\n".encode()

WRONG = {
    "another format": (b"sha256sum\n", "line 1: begins with"),
    "a newer version": (HEAD.replace(b"set/1", b"set/2") + ROW, "line 1: begins with"),
    "no name": (b"vtpm-attest/runtime-set/1\nsources 0\n", "line 2: expected 'name'"),
    "a bad name": (HEAD.replace(b"name test", b"name ../x") + ROW, "line 2: the name '../x'"),
    "empty description": (HEAD.replace(b"sources", b"description \nsources", 1), "line 3: an empty"),
    "cut in a line": (HEAD + ROW[:-1], "cut off"),
    "cut between lines": (HEAD, "line 6: the file ends here"),
    "more lines": (HEAD + ROW + ROW, "line 7: more lines"),
    "a number too many": (HEAD.replace(b"entries 1", b"entries 99999999"), "line 4: entries"),
    "a number with a sign": (HEAD.replace(b"entries 1", b"entries +1"), "line 4: entries"),
    "leading zero": (HEAD.replace(b"sources 1", b"sources 01"), "line 3: sources"),
    "source of three words": (HEAD.replace(b" amd64", b"") + ROW, "line 5: a source is"),
    "source without a name": (HEAD.replace(b"deb bash", b"deb -") + ROW, "line 5: a source has"),
    "source kind": (HEAD.replace(b"deb", b"DEB") + ROW, "line 5: a source has"),
    "an unused source": (HEAD + ROW.replace(b" 0 ", b" - "), "is named by no entry"),
    "an unknown source": (HEAD + ROW.replace(b" 0 ", b" 1 "), "line 6: b'1' does not name"),
    "a source twice": (HEAD + ROW.replace(b" 0 ", b" 0,0 "), "line 6: the sources of an entry"),
    "an entry without path": (HEAD + ROW.replace(b" /bin/bash", b""), "line 6: an entry is"),
    "a blank in a path": (HEAD + ROW.replace(b"/bin/b", b"/bin/ b"), "line 6: an entry is"),
    "an escaped blank": (HEAD + ROW.replace(b"/bin/b", b"/bin/\\x20b"), "path line 6: the path"),
    "two blanks": (HEAD + ROW.replace(b" 0 ", b" 0  "), "line 6: an entry is"),
    "an unknown algorithm": (HEAD + ROW.replace(b"sha256", b"md5"), "line 6: .* known kind of digest"),
    "another algorithm": (HEAD + ROW.replace(b"sha256", b"sha512"), "line 6: a sha512 digest is 128"),
    "upper case": (HEAD + ROW.replace(H.encode(), H.upper().encode()), "line 6: a sha256 digest is 64"),
    "no hex": (HEAD + ROW.replace(H.encode(), b"g" * 64), "line 6: a sha256 digest is 64"),
    "out of order": (
        HEAD.replace(b"entries 1", b"entries 2") + ROW + ROW.replace(b"/bin", b"/a"),
        "line 7: entries stand in ascending order",
    ),
    "an entry twice": (HEAD.replace(b"entries 1", b"entries 2") + ROW + ROW, "line 7: entries stand in"),
    "carriage returns": ((HEAD + ROW).replace(b"\n", b"\r\n"), "line 1: begins with"),
    "an endless line": (HEAD + b"a" * 40_000, "longer than 32768"),
    "a path too long": (HEAD + ROW.replace(b"/bin", b"/" + b"b" * 4096), "line 6: a path of 4102 bytes"),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_departures_are_named_by_their_line(name):
    text, said = WRONG[name]
    with pytest.raises(RuntimeSetError) as caught:
        read_runtime_set([text])
    assert re.search(said, str(caught.value)), str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.binary(max_size=3), st.integers(0, 4))
def test_a_damaged_text_is_another_set_or_an_error(at, replacement, cut):
    damaged = TEXT[:at] + replacement + TEXT[at + cut :]
    try:
        found = read_runtime_set([damaged])
    except RuntimeSetError:
        return
    assert text_of(found) == damaged


def test_a_set_is_held_against_the_digest_it_was_named_by():
    assert len(read_runtime_set([TEXT], digest=digest_of(SMALL))) == 5
    other = TEXT.replace(H.encode(), hashlib.sha256(b"other").hexdigest().encode())
    with pytest.raises(RuntimeSetError, match="its SHA-256 is"):
        read_runtime_set([other], digest=digest_of(SMALL))


def test_one_digest_under_many_paths_is_found_under_each_and_no_other():
    """Thousands of empty files share a digest: their bucket of the index is searched, not walked."""
    files = a_set(*(entry(f"/usr/lib/p{i}/__init__.py", b"") for i in range(3000)), entry("/x", b"x"))
    digest = hashlib.sha256(b"").digest()
    for i in (0, 1, 17, 1500, 2999):
        assert files.find(SHA256, digest, f"/usr/lib/p{i}/__init__.py".encode()) is not None
    assert files.find(SHA256, digest, b"/usr/lib/p3000/__init__.py") is None
    assert files.find(SHA256, hashlib.sha256(b"x").digest(), b"/usr/lib/p1/__init__.py") is None
    table = files.tables[SHA256]
    assert len(list(table.with_digest(digest))) == 3000
    assert [table.path(row) for row in table.with_digest(hashlib.sha256(b"x").digest())] == [b"/x"]


def test_digests_that_someone_made_share_a_bucket_are_told_apart():
    crowded = [bytes(4) + bytes([i]) * 28 for i in range(1, 60)]
    files = a_set(*(Entry(b"/same", SHA256, digest) for digest in crowded[::2]))
    for digest in crowded:
        assert (files.find(SHA256, digest, b"/same") is not None) is (digest in crowded[::2])
        assert files.find(SHA256, digest, b"/other") is None


def test_every_entry_of_a_large_set_is_found_and_none_beside():
    whole = many(20_000)
    for each in whole:
        assert whole.find(each.kind, each.digest, each.path) == each
        assert whole.find(each.kind, each.digest[::-1], each.path) is None


def test_entries_that_went_through_another_process_are_found():
    for each in pickle.loads(pickle.dumps(list(SMALL))):
        assert SMALL.find(each.kind, each.digest, each.path) == each


def test_kinds_of_digests_are_kept_apart():
    """fs-verity's digest of a file is not the digest of its content, even where the bytes agree."""
    digest = hashlib.sha256(b"tree").digest()
    both = a_set(Entry(b"/x", VERITY, digest), entry("/x", b"x"), entry("/x", b"x", kind=SHA1))
    assert both.find(VERITY, digest, b"/x") is not None
    assert both.find(SHA256, digest, b"/x") is None
    assert both.find(KIND_OF[Kind.FILE, HashAlg.SHA512], digest * 2, b"/x") is None
    assert [each.kind.text for each in both] == ["sha1:", "sha256:", "verity:sha256:"]
    assert len(both.at_path(b"/x")) == 3


def test_a_path_is_kept_as_the_kernel_logs_it():
    assert logged_path(b"/opt/My App/run me") == b"/opt/My_App/run_me"
    with pytest.raises(RuntimeSetError, match="underscores"):
        a_set(entry("/opt/My App", b""))
    odd = a_set(entry(b"/opt/\xff\n\\x", b""), entry("/opt/Größe", b""))
    assert [line.split(b" ")[2] for line in text_of(odd).splitlines()[-2:]] == [
        "/opt/Größe".encode(),
        b"/opt/\\xff\\x0a\\x5cx",
    ]
