"""Merge, diff and prune."""

from __future__ import annotations

import pytest

from tests.runtime_sets import BASH, COREUTILS, a_set, entry, text_of
from verifier.policy.diff import Change
from verifier.policy.runtime.combine import Pruning, diff, merge, prune
from verifier.policy.runtime.entry import KIND_OF, Kind
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.runtime_set import Head
from verifier.tcg.algorithms import HashAlg

HEAD = Head(name="result")
NEWER = BASH._replace(version="5.2.15-2+b8")
OLD = a_set(entry("/bin/bash", b"1", BASH), entry("/bin/ls", b"ls", COREUTILS), entry("/empty", b"", BASH))
NEW = a_set(entry("/bin/bash", b"2", NEWER), entry("/bin/ls", b"ls", COREUTILS), entry("/empty", b"", NEWER))


def test_a_merged_set_has_what_either_has_and_all_their_sources():
    both = merge(HEAD, [OLD, NEW])
    assert [(each.path, len(each.sources)) for each in both] == [
        (b"/bin/bash", 1),
        (b"/bin/bash", 1),
        (b"/bin/ls", 1),
        (b"/empty", 2),
    ]
    assert both.sources == (BASH, NEWER, COREUTILS)
    assert text_of(both) == text_of(merge(HEAD, [NEW, OLD])) == text_of(merge(HEAD, [both, OLD]))


def test_a_diff_lists_paths_whose_digests_differ():
    later = merge(HEAD, [NEW, a_set(entry("/new", b"n"))])
    changes = list(diff(OLD, later))
    assert [(each.change, each.path) for each in changes] == [
        (Change.CHANGED, b"/bin/bash"),
        (Change.ADDED, b"/new"),
    ]
    assert changes[0].before == OLD.at_path(b"/bin/bash")
    assert changes[0].after == NEW.at_path(b"/bin/bash")
    assert [each.change for each in diff(later, OLD)] == [Change.CHANGED, Change.REMOVED]
    assert list(diff(OLD, OLD)) == []


def test_pruning_a_source_takes_entries_that_only_it_has():
    left = prune(HEAD, merge(HEAD, [OLD, NEW]), Pruning(source=lambda source: source == BASH))
    assert text_of(left) == text_of(NEW.named(HEAD))


def test_pruning_by_path_algorithm_and_what_was_seen():
    sha1 = KIND_OF[Kind.FILE, HashAlg.SHA1]
    whole = merge(HEAD, [OLD, a_set(entry("/bin/ls", b"ls", kind=sha1))])
    assert [e.path for e in prune(HEAD, whole, Pruning(path=lambda path: path == b"/empty"))] == [
        b"/bin/bash",
        b"/bin/ls",
        b"/bin/ls",
    ]
    assert {e.kind.alg for e in prune(HEAD, whole, Pruning(algorithms=[HashAlg.SHA1]))} == {HashAlg.SHA1}
    seen = a_set(entry("/bin/bash", b"another digest"))
    assert [e.path for e in prune(HEAD, whole, Pruning(seen=[seen]))] == [b"/bin/bash"]
    assert prune(HEAD, whole, Pruning(seen=[seen])).sources == (BASH,)


def test_an_empty_set_is_no_result():
    with pytest.raises(RuntimeSetError, match="nothing is left"):
        prune(HEAD, OLD, Pruning(path=lambda _: True))
