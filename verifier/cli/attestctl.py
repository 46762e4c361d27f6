"""`attestctl`: offline tools and an operator's view of the fleet."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError

from verifier.cli import (
    ak_certificate,
    appraise,
    assignments,
    attester,
    audit,
    decisions,
    ek,
    eventlog,
    events,
    explain,
    fleet,
    guard,
    ima,
    ima_triage,
    inventory,
    output,
    policy,
    runtime,
    secrets,
    watch,
    webhooks,
)
from verifier.cli.completion import add_completion
from verifier.cli.examples import show_examples

app = App(
    name="attestctl",
    help="Look into boot logs, appraise evidence offline, and ask a verifier about its fleet.",
    version=lambda: f"attestctl {version('vtpm-attest')}",
    help_format="plaintext",
)
app.command(eventlog.eventlog)
_ima = App(name="ima")
_ima.default(ima.ima)
_ima.command(ima_triage.triage)
app.command(_ima)
app.command(appraise.appraise)
app.command(policy.app)
app.command(runtime.app)
app.command(fleet.status)
app.command(fleet.attesters)
app.command(attester.attester)
app.command(fleet.verdict)
app.command(fleet.history)
app.command(fleet.revoke)
app.command(explain.explain)
app.command(explain.evidence)
app.command(assignments.label)
app.command(decisions.enrollments)
app.command(decisions.clones)
app.command(decisions.resolve)
app.command(audit.app)
app.command(watch.watch)
app.command(events.events)
app.command(webhooks.app)
app.command(secrets.app)
app.command(inventory.inventory)
app.command(ak_certificate.ak_certificate)
app.command(guard.guard)

_ek = App(name="ek", help="Endorsement key certificates.")
_ek.command(ek.check, name="check")
app.command(_ek)
add_completion(app)
show_examples(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; usage errors leave with 64, so that 0 to 3 always mean a verdict."""
    try:
        result = app(
            sys.argv[1:] if arguments is None else arguments,
            exit_on_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
    except CycloptsError:
        raise SystemExit(output.EXIT_USAGE) from None
    except KeyboardInterrupt:
        raise SystemExit(output.EXIT_INTERRUPTED) from None
    except BrokenPipeError:  # `| head`: nobody reads any more; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(output.EXIT_IO) from None
    raise SystemExit(result if isinstance(result, int) else 0)


if __name__ == "__main__":
    main()
