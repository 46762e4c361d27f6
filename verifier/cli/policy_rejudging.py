"""`attestctl policy rejudging`: how far the verifier is with judging the fleet again by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from cyclopts import Parameter

from verifier.cli import output
from verifier.cli.fleet import Where
from verifier.cli.remote import Remote, path_of

_LOOK_EVERY: Final = 1.0
_STOPPED: Final = 1


def rejudging(
    policy_id: str,
    *,
    wait: Annotated[bool, Parameter(negative="")] = False,
    stop: Annotated[bool, Parameter(negative="")] = False,
    where: Where | None = None,
) -> int:
    """Show how far the fleet is judged again in the background (`policy apply --rejudge --background`), or stop that.

    The verifier goes on by itself, whoever looks: Ctrl-C ends the looking alone. Exit code: 0 it is done or under way, 1 it
    was stopped before everyone was looked at.

    Examples:
        attestctl policy rejudging secure-boot

        attestctl policy rejudging secure-boot --wait

        attestctl policy rejudging secure-boot --stop

    Args:
        policy_id: the policy that was applied.
        wait: look on until it is done.
        stop: judge nobody else again; what was judged again stays.
    """
    at = where or Where()
    if stop:
        at.ask(lambda remote: remote.delete(_path(policy_id)))
    found = at.ask(lambda remote: _looked(remote, policy_id, wait=wait))
    if at.json:
        output.print_json(found)
    else:
        show(found)
    return _STOPPED if found["state"] == "stopped" else 0


def begin(remote: Remote, policy_id: str, query: Mapping[str, object | None]) -> Mapping[str, Any]:
    """Have the verifier judge the fleet again by itself."""
    begun: Mapping[str, Any] = remote.upload(_path(policy_id), b"", "application/json", query)
    return begun


def show(found: Mapping[str, Any]) -> None:
    """How far it is, in words."""
    counts = found["counts"]
    said = {"running": "under way", "done": "done", "stopped": f"stopped: {found.get('problem')}"}
    output.out.print(
        f"{found['policy']}: judging again is {said[found['state']]}; {counts['examined']} of {found['total']} guest(s) looked at,"
        f" {counts.get('stored', 0)} new verdict(s), {counts.get('unjudged', 0)} could not be judged",
        highlight=False,
    )


def _looked(remote: Remote, policy_id: str, *, wait: bool) -> Mapping[str, Any]:
    found: Mapping[str, Any] = remote.get(_path(policy_id))
    if not wait or found["state"] != "running":
        return found

    def attesters() -> Iterator[None]:
        """One for each attester that is looked at."""
        nonlocal found
        seen = 0
        while True:
            for _ in range(found["counts"]["examined"] - seen):
                yield
            seen = max(seen, found["counts"]["examined"])
            if found["state"] != "running":
                return
            time.sleep(_LOOK_EVERY)
            found = remote.get(_path(policy_id))

    for _ in output.progress(attesters(), "guests", found["total"]):
        pass
    return found


def _path(policy_id: str) -> str:
    return f"/v1/policies{path_of(policy_id, 'rejudging')}"
