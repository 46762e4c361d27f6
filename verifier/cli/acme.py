"""`attest-verifier acme`: the server's certificate from a CA that gives it by itself."""

from __future__ import annotations

from verifier.adapters import SystemClock
from verifier.cli import host
from verifier.composition import VERSION


def acme(*, force: bool = False, config: host.Config = None, as_json: host.Json = False) -> None:
    """Fetch the server's certificate from an ACME CA, if there is none or two thirds of its life are over.

    Run it once before the service starts, and by a timer from then on: a running service takes up the new certificate within a
    minute. Whom to ask is in [acme] of the settings; the files are tls.certificate and tls.key. The CA asks on port 80 of each
    name, where this command answers while it runs.

    Example:
        attest-verifier acme --config /etc/vtpm-attest/verifier.toml
        attest-verifier acme --force --json

    Args:
        force: fetch one although it is not time yet.
        config: TOML file with settings.
        as_json: print one JSON document and nothing else.
    """
    settings = host.read_settings(config)
    try:
        from verifier import acme_renewal  # noqa: PLC0415 - an extra
    except ImportError:
        host.fail(host.EXIT_UNAVAILABLE, "this needs the extra acme: pip install vtpm-attest[acme]")
    agent = f"vtpm-attest/{VERSION}"
    done = host.guarded(lambda: acme_renewal.renew(settings, SystemClock().now(), force=force, agent=agent))
    if as_json:
        host.print_json(
            {
                "renewed": bool(done.reason),
                "reason": done.reason or None,
                "names": list(done.names),
                "ends": host.time_text(done.ends),
                "due": host.time_text(done.due),
            }
        )
        return
    if done.reason:
        host.say(
            f"new certificate for {', '.join(done.names)}, good until {host.time_text(done.ends)}: {done.reason}"
        )
    else:
        host.say(
            f"nothing to do until {host.time_text(done.due)}: the certificate is good until {host.time_text(done.ends)}"
        )
