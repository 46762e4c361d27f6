"""Collectors: what the operating system knows of this boot. Nothing they return is proven."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.collect.sources import Collected, Sources

__all__ = ["Collected", "Sources", "sources_for"]


def sources_for(root: Path | None, platform: str = sys.platform) -> Sources:
    """The collector of this platform, reading below `root` (default: the machine itself)."""
    if platform == "win32":
        from agent.collect.windows import WindowsSources  # noqa: PLC0415 - one platform is enough to import
        from agent.windows.system import Windows  # noqa: PLC0415

        return WindowsSources(root or Path("C:/"), Windows() if root is None else None)
    from agent.collect.linux import LinuxSources  # noqa: PLC0415

    return LinuxSources(root or Path("/"))
