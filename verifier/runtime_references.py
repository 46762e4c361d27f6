"""Runtime references from a folder of runtime sets, found by their digests whatever their files are called."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from verifier.errors import EvidenceError, VerifierFault
from verifier.policy.model import Policy
from verifier.policy.runtime.compiled import CompiledReference
from verifier.policy.runtime.reading import MAX_TEXT
from verifier.policy.runtime.reference import RuntimeReference
from verifier.policy.runtime.runtime_set import RuntimeSet
from verifier.policy.runtime.section import RuntimeSection
from verifier.ports_runtime import Recipe, SetMissing
from verifier.runtime_sets.compression import expanded_whole
from verifier.runtime_sets.files import load_set, streamed
from verifier.runtime_sets.making import CHUNK, Silent
from verifier.tcg.algorithms import HashAlg

SUFFIXES: Final = (".rtset", ".rtset.zst", ".rtset.gz", ".rtset.xz")
_KEPT: Final = 16
_HEAD: Final = 256
_RECIPES: Final = 64
_sets: Final[OrderedDict[str, RuntimeSet]] = OrderedDict()
"""Sets of this process by their SHA-256: policies that name the same set, and their revisions, share it."""


@dataclass(frozen=True, slots=True)
class FolderRecipe:
    """How to make a reference, in whichever process.

    Attributes:
        revision: that of the section, and of the reference.
        files: SHA-256 of each set the section names, and the file that had it.
    """

    section: RuntimeSection
    revision: bytes
    bank: HashAlg
    files: tuple[tuple[str, Path], ...]

    def make(self) -> RuntimeReference:
        """Read what is not at hand and put it together.

        Raises:
            VerifierFault: a file cannot be read, or is no longer the set it was.
        """
        try:
            return CompiledReference(
                self.section, {sha: _load(sha, path) for sha, path in self.files}, self.bank
            )
        except EvidenceError as error:
            raise VerifierFault(f"runtime set: {error}") from error


def _load(sha256: str, path: Path) -> RuntimeSet:
    found = _sets.get(sha256)
    if found is None:
        found = load_set(path, digest=sha256)
    _sets[sha256] = found
    _sets.move_to_end(sha256)
    while len(_sets) > _KEPT:
        _sets.popitem(last=False)
    return found


class FolderReferences:
    """`verifier.ports_runtime.RuntimeReferences` over folders of `*.rtset` and `*.rtset.zst`.

    A file is looked into once, and again when it has changed: a new set is put there under a new name, then the
    policy that names it is registered, and every process takes it up with its next list.
    """

    def __init__(self, folders: Sequence[Path], policies: Sequence[Path] = ()) -> None:
        """Look into `folders`, then beside the policies in `policies` and the folders below these."""
        self._folders = tuple(folders)
        self._policies = tuple(policies)
        self._known: dict[tuple[Path, int, int], _About] = {}
        self._recipes: OrderedDict[str, FolderRecipe] = OrderedDict()

    def reads(self, policy: Policy) -> bool:
        """Whether the policy has a runtime part."""
        return policy.runtime is not None

    async def recipe(self, policy: Policy) -> Recipe:
        """See the port. Looked for once per revision, and again when a file it was found in is gone."""
        found = self._recipes.get(policy.revision)
        if found is None or not all(path.exists() for _, path in found.files):
            found = await asyncio.to_thread(self.find, policy)
            self._recipes[policy.revision] = found
            while len(self._recipes) > _RECIPES:
                self._recipes.popitem(last=False)
        return found

    def find(self, policy: Policy) -> FolderRecipe:
        """The recipe of a policy that has a runtime part.

        Raises:
            SetMissing: a set that it names is in none of the folders, under that name.
        """
        section = policy.runtime
        if section is None:
            raise LookupError(f"policy {policy.id} does not read the IMA list")
        wanted = {each.sha256: each.name for each in (*section.sets, *section.staged)}
        known: dict[str, Path] = {}
        for path in self._files():
            if wanted.keys() <= known.keys():
                break
            about = self._look(path)
            if about is not None and wanted.get(about.sha256, about.name) in {"", about.name}:
                known.setdefault(about.sha256, path)
        for sha256, name in wanted.items():
            if sha256 not in known:
                searched = ", ".join(map(str, (*self._folders, *self._policies)))
                where = searched or "any folder: neither runtime_sets_dir nor policies_dir is set"
                raise SetMissing(
                    f"policy {policy.id} names the runtime set {name} {sha256}, which is not in {where}"
                )
        return FolderRecipe(
            section, section.revision, policy.quote.bank, tuple((sha, known[sha]) for sha in wanted)
        )

    def _files(self) -> list[Path]:
        try:
            found = [path for folder in self._folders for path in sorted(folder.iterdir())]
            for folder in self._policies:
                found += sorted(folder.glob("*")) + sorted(folder.glob("*/*"))
            return [path for path in found if path.name.endswith(SUFFIXES) and path.is_file()]
        except OSError as error:
            raise VerifierFault(f"runtime_sets_dir: {error}") from error

    def _look(self, path: Path) -> _About | None:
        """What is in a file; None where it cannot be read, which only matters if it is the one wanted."""
        try:
            about = path.stat()
            key = (path, about.st_mtime_ns, about.st_size)
            if key not in self._known:
                self._known[key] = _about(path)
            return self._known[key]
        except (OSError, EvidenceError):
            return None


class _About(NamedTuple):
    """A set by its digest and name."""

    sha256: str
    name: str


def _about(path: Path) -> _About:
    state = hashlib.sha256()
    with streamed(path, Silent(), limit=MAX_TEXT) as stream:
        text = expanded_whole(stream, limit=MAX_TEXT)
        head = text.peek(_HEAD).split(b"\n")
        while chunk := text.read(CHUNK):
            state.update(chunk)
    name = head[1].removeprefix(b"name ") if len(head) > 1 else b""
    return _About(state.hexdigest(), name.decode(errors="replace"))
