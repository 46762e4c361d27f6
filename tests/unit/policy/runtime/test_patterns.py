"""Patterns of paths, and how much they let through."""

from __future__ import annotations

import pytest

from verifier.policy.runtime.breadth import Breadth, breadth
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.patterns import Patterns

MATCHES = [
    ("/tmp/*", "/tmp/x", True),
    ("/tmp/*", "/tmp/x/y", False),
    ("/tmp/**", "/tmp/x/y", True),
    ("/tmp/**", "/tmp/", True),
    ("/tmp/**", "/tmp", False),
    ("/tmp/**", "/var/tmp/x", False),
    ("/tmp/**", "/tmpx/y", False),
    ("/opt/**/*.pyc", "/opt/a.pyc", True),
    ("/opt/**/*.pyc", "/opt/a/b/c.pyc", True),
    ("/opt/**/*.pyc", "/opt/a/b/c.pyc/d", False),
    ("/opt/v?/x", "/opt/v1/x", True),
    ("/opt/v?/x", "/opt/v/x", False),
    ("/opt/v?/x", "/opt/v//x", False),
    ("/a.b", "/a.b", True),
    ("/a.b", "/axb", False),
    ("/usr/bin/[", "/usr/bin/[", True),
    ("/Größe/*", "/Größe/x", True),
    ("/x", "/x\n", False),
    ("/tmp/*", "/tmp/a\nb", True),
    (r"regex:/opt/v[0-9]+/.*", "/opt/v12/x", True),
    (r"regex:/opt/v[0-9]+/.*", "/opt/v12/x\ny", True),
    ("/tmp/**", "/tmp/a\nb/c", True),
    (r"regex:/opt/v[0-9]+/.*", "/srv/opt/v12/x", False),
    (r"regex:/opt/v[0-9]+", "/opt/v12/x", False),
    (r"regex:/a|/b", "/bx", False),
    (r"regex:/a|/b", "/b", True),
    (r"regex:/Größe", "/Größe", True),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), MATCHES)
def test_patterns_match_whole_paths(pattern, path, expected):
    patterns = Patterns(["/nothing", pattern])
    assert patterns.match(path.encode()) is expected
    assert patterns.which(path.encode()) == (pattern if expected else None)


def test_no_pattern_matches_nothing():
    assert not Patterns([])
    assert not Patterns([]).match(b"/x")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "1 to 4096"),
        ("/opt/My App/*", "underscores"),
        ("/opt/**x", "whole components"),
        ("**", "whole components"),
        ("regex:(", "missing"),
        ("regex:(?=x)y", "invalid perl operator"),
        ("regex:a{1,5000}", "repetition"),
    ],
)
def test_patterns_that_are_none_are_named(pattern, said):
    with pytest.raises(RuntimeSetError, match=said):
        Patterns([pattern])


def test_a_hostile_path_costs_no_more_than_its_length():
    """The very pattern and path that keep a backtracking matcher busy for centuries."""
    patterns = Patterns([r"regex:(/?a+)+b", "/**/a/**/a/**/a/**/a/*a*a*a*b"])
    assert not patterns.match(b"/a" * 2048)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["regex:.*"], Breadth.EVERYTHING),
        (["regex:/.*"], Breadth.EVERYTHING),
        (["/**"], Breadth.EVERYTHING),
        (["regex:(/[^/]+)+"], Breadth.EVERYTHING),
        (["regex:/[a-z].*"], Breadth.EVERYTHING),
        ([r"regex:.*\.py"], Breadth.EVERYTHING),
        ([r"regex:.*\.so"], Breadth.EVERYTHING),
        (["/q*", "/h*/**", "/s*/**", "/u*/**", "/q*/**"], Breadth.EVERYTHING),
        (["/usr/**"], Breadth.PROGRAMS),
        (["/usr/bin/*"], Breadth.PROGRAMS),
        (["/usr/lib/modules/**"], Breadth.PROGRAMS),
        (["/usr/lib/**/*.so.1"], Breadth.PROGRAMS),
        (["/tmp/**", "/var/lib/docker/**", "/usr/share/**", "/usr/bin/known"], Breadth.NARROW),
        ([], Breadth.NARROW),
    ],
)
def test_breadth(patterns, expected):
    assert breadth(Patterns(patterns))[0] is expected
