"""`attest-verifier secrets`: the keys that secrets for machines are encrypted with in the database."""

from __future__ import annotations

from typing import Final

from cyclopts import App

from verifier.cli import host

app: Final = App(name="secrets", help="Secrets for machines, as they are in the database.", help_epilogue="")


@app.command
def rekey(*, config: host.Config = None, as_json: host.Json = False) -> None:
    """Encrypt every stored secret with the first of the keys; the others are needed no longer afterwards.

    Put the new key before the others in `secrets.keys`, let every replica take that up, then run this once.

    Example:
        attest-verifier secrets rekey --config /etc/vtpm-attest/verifier.toml
    """
    settings = host.read_settings(config)
    done, count = host.ask(settings, lambda service: service.services.secrets.encrypt_anew("cli"))
    if as_json:
        host.print_json({"secrets": count, "encrypted": done})
    else:
        host.say(f"{done} of {count} secrets were encrypted anew; all are encrypted with the first key now")
