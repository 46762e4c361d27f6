"""IMA lists, binary and ascii: bytes to entries (Linux, Documentation/security/IMA-templates.rst)."""

from __future__ import annotations

from verifier.tcg.ima.entry import ByteOrder, ImaList


def parse_binary(
    data: bytes, *, byte_order: ByteOrder = "little", digest_size: int = 20, first_index: int = 0
) -> ImaList:
    """Parse `binary_runtime_measurements`, whole or from the start of any entry.

    Args:
        data: whole entries.
        byte_order: of the guest's kernel (little with `ima_canonical_fmt`).
        digest_size: bytes of a template digest; 20 but in the per-algorithm files of newer kernels.
        first_index: index of the first entry in the guest's list.

    Raises:
        ImaFormatError: with the byte offset and the entry's index.
    """
    raise NotImplementedError


def parse_ascii(data: bytes, *, byte_order: ByteOrder = "little", first_index: int = 0) -> ImaList:
    """Parse `ascii_runtime_measurements`; the template data is rebuilt from the text, for `byte_order`.

    What the ascii form loses (a path with a line feed in it) makes an entry whose template digest does not fit its
    template data, or an `ImaFormatError`.
    """
    raise NotImplementedError


def parse_list(data: bytes, *, first_index: int = 0) -> ImaList:
    """Parse a list of either form, finding out which it is, its byte order and the size of its template digests."""
    raise NotImplementedError
