"""Read policies from disk: a YAML file, or a folder with `policy.yaml` and `reference-values*.yaml` beside it."""

from __future__ import annotations

from pathlib import Path

from verifier.errors import PolicyError


def read_policy_source(path: Path) -> bytes:
    """The bytes of one policy with its reference values, joined into one YAML stream.

    The joined bytes are what the revision is a digest of, so a changed reference value is a new revision.
    """
    if not path.is_dir():
        return _read(path)
    main = path / "policy.yaml"
    parts = [_read(main), *(_read(each) for each in sorted(path.glob("reference-values*.yaml")))]
    return b"\n---\n".join(parts)


def find_policies(folder: Path) -> tuple[Path, ...]:
    """Every policy below `folder`: subfolders with a `policy.yaml`, and single YAML files."""
    if not folder.is_dir():
        raise PolicyError("is not a folder", where=str(folder))
    folders = [entry for entry in sorted(folder.iterdir()) if (entry / "policy.yaml").is_file()]
    return (*folders, *sorted(folder.glob("*.yaml")))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(error.strerror or str(error), where=str(path)) from error
