"""`completion`: the script with which a shell completes a command, as the command line library makes it."""

from __future__ import annotations

import sys
from typing import Literal

from cyclopts import App

Shell = Literal["bash", "zsh", "fish"]
_DOCUMENTATION = """Print the script with which a shell completes this command.

    Example:
        {name} completion bash > /etc/bash_completion.d/{name}
        {name} completion zsh > "${{fpath[1]}}/_{name}"
        {name} completion fish > ~/.config/fish/completions/{name}.fish

    Args:
        shell: bash, zsh or fish.
    """


def add_completion(app: App) -> None:
    """Give a command a subcommand `completion`."""

    def completion(shell: Shell, /) -> int:
        sys.stdout.write(app.generate_completion(shell=shell))
        return 0

    completion.__doc__ = _DOCUMENTATION.format(name=app.name[0])
    app.command(completion)
