"""How to see the next page is told so that it can be pasted."""

from __future__ import annotations

import pytest

from verifier.cli import output


@pytest.mark.parametrize("cursor", ["-begins-with-a-hyphen", "abc"])
def test_a_cursor_is_told_as_one_word(cursor, capsys):
    output.more({"cursor": cursor})
    assert capsys.readouterr().err.split() == ["more:", f"--cursor={cursor}"]


def test_the_last_page_is_followed_by_nothing(capsys):
    output.more({"cursor": None})
    output.more({})
    assert capsys.readouterr() == ("", "")
