r"""How paths and names are written in a runtime set: what a person can read, one way for each value.

Printable ASCII but for the backslash stands for itself, and so does valid UTF-8 beyond it; every other byte is
`\xHH`, lower-case. One word never has a blank in it.
"""

from __future__ import annotations

import re
from typing import Final

_ODD: Final = re.compile(rb"[^\x21-\x5b\x5d-\x7e]")
_ODD_BELOW_ASCII: Final = re.compile(rb"[\x00-\x20\x5c\x7f]")
_ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})")


def written(word: bytes) -> bytes:
    """The word as it stands in a runtime set."""
    if not _ODD.search(word):
        return word
    try:
        word.decode()
    except UnicodeDecodeError:
        return _ODD.sub(_escaped, word)
    return _ODD_BELOW_ASCII.sub(_escaped, word)


def read(text: bytes) -> bytes:
    """The word that is written as `text`; raises `ValueError` where `written` would write it in another way."""
    if not _ODD.search(text):
        return text
    word = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), text)
    if written(word) != text:
        raise ValueError(f"{text[:80]!r} is not written in the one way it should be")
    return word


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"\\x%02x" % match[0][0]
