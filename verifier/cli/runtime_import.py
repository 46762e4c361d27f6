"""`attestctl runtime import-keylime`: runtime policies of Keylime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import yaml
from cyclopts import Parameter
from rich.markup import escape

from verifier.cli import output
from verifier.cli.runtime_options import SetFile, finish
from verifier.errors import VtpmAttestError
from verifier.policy.runtime.keylime import read_keylime
from verifier.policy.runtime.writing import digest_of
from verifier.policy_files import read_file
from verifier.runtime_sets.errors import MakingError

Target = Annotated[SetFile, Parameter(name="*")]
_NAMED: Final = 20


def import_keylime(policy: Path, /, *, target: Target, part: Path | None = None, lossy: bool = False) -> int:
    """Take a runtime policy of Keylime (JSON, signed or not): its digests as a set, the rest as part of a policy.

    What cannot be carried is listed, and nothing is written unless you say --lossy. Exit code: 0, or 65.

    Examples:
        attestctl runtime import-keylime runtime-policy.json --out web.rtset.zst --part web-runtime.yaml

        attestctl runtime import-keylime runtime-policy.json --out web.rtset.zst --lossy --json

    Args:
        policy: the runtime policy.
        target: the set that is written.
        part: where to write the `runtime` part for a policy (YAML): the set, excludes, keys.
        lossy: write what can be carried, and note what cannot.
    """
    try:
        imported = read_keylime(read_file(policy), target.head())
        if imported.losses and not lossy:
            _refuse(policy, imported.losses)
        document = {
            "runtime": {
                "sets": [{"sha256": digest_of(imported.runtime_set), "name": imported.runtime_set.head.name}],
                **imported.part,
            }
        }
        if part is not None:
            part.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110))
        elif imported.part:
            raise MakingError(
                f"it says more than digests ({', '.join(imported.part)}); say with --part where that is to go",
                where=str(policy),
            )
    except VtpmAttestError as error:
        output.fail(error)
    except OSError as error:
        output.fail(MakingError(error.strerror or str(error), where=str(part)))
    return finish(target, imported.runtime_set, (*imported.losses, *imported.notes))


def _refuse(policy: Path, losses: tuple[str, ...]) -> None:
    for loss in losses[:_NAMED]:
        output.err.print(f"[yellow]cannot be carried:[/] {escape(loss)}", soft_wrap=True)
    raise MakingError(
        f"{len(losses)} things it says cannot be carried; --lossy takes the rest", where=str(policy)
    )
