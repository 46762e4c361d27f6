"""tpm2-pytss, loaded without `cryptography`: a third of what the resident agent would weigh, for nothing it uses.

The library imports `cryptography` for helpers that compute with keys outside of a TPM (PEM files, software signatures).
The agent calls none of them. While the library is imported, names of `cryptography` therefore stand for nothing;
calling one says so. Where that does not work, or `cryptography` is loaded already, the import is the ordinary one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final, NoReturn

_LEFT_OUT: Final = "cryptography"
_LIBRARY: Final = "tpm2_pytss"


def load_tpm_library() -> None:
    """Import `tpm2_pytss`.

    Raises:
        ImportError: it is not there, or cannot be loaded.
    """
    if _LIBRARY not in sys.modules and _LEFT_OUT not in sys.modules:
        _import_without()
    import_module(_LIBRARY)


def _import_without() -> None:
    finder = _Absent()
    sys.meta_path.insert(0, finder)
    try:
        import_module(_LIBRARY)
    except ImportError:
        raise
    except Exception:  # noqa: BLE001 - a version that needs more of it at once than a name: import all of it then
        _forget(_LIBRARY)
    finally:
        sys.meta_path.remove(finder)
        _forget(_LEFT_OUT)


class _Name(type):
    """A class that stands for anything: it can be named, put into tables and asked for more names."""

    def __getattr__(cls, name: str) -> _Name:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {})

    def __call__(cls, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"the agent loads tpm2-pytss without {_LEFT_OUT}; {cls.__name__} needs it")


class _Module(ModuleType):
    def __getattr__(self, name: str) -> _Name:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {})


class _Absent(MetaPathFinder, Loader):
    """Finds every module of `cryptography`, and makes it of names alone."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _LEFT_OUT:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, _module: ModuleType) -> None:
        return


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
