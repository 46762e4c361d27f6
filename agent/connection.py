"""Which CA vouches for the verifier: from a file, from the state, or fetched once by the join token's fingerprint."""

from __future__ import annotations

import hmac
from pathlib import Path

import msgspec

from agent.errors import ConfigError, PinMismatchError
from agent.join_token import JoinToken
from agent.state import StateFile
from agent.transport import Server, Transport, certificates_of, fetch_pinned_ca, fingerprint, trusting


def connect(server: str | None, token: JoinToken | None, ca_file: Path | None, store: StateFile) -> Transport:
    """A transport to the verifier that trusts exactly one CA.

    The state remembers server and CA, so that after enrolment neither needs to be given again.

    Raises:
        ConfigError: no server, or nothing says which CA to trust. Others: see `fetch_pinned_ca`.
    """
    state = store.load()
    address = server or state.server
    if address is None:
        raise ConfigError(
            "no verifier is configured",
            "give --server https://HOST:PORT, VTPM_ATTEST_SERVER, or `server` in the file",
        )
    target = Server.parse(address)
    pem = _ca(target, token, ca_file, state.ca_pem)
    if (pem, str(target)) != (state.ca_pem, state.server):
        store.save(msgspec.structs.replace(state, ca_pem=pem, server=str(target)))
    return Transport(target, trusting(pem))


def _ca(target: Server, token: JoinToken | None, ca_file: Path | None, remembered: str | None) -> str:
    pin = token.ca_fingerprint if token else None
    if ca_file is not None:
        pem = _read(ca_file)
        if pin is not None and not _has(pem, pin):
            raise PinMismatchError(
                f"{ca_file} is not the CA the join token names ({pin.hex()})",
                "leave --ca-file away to trust the join token, or use a token of that CA's verifier",
            )
        return pem
    if remembered is not None and (pin is None or _has(remembered, pin)):
        return remembered
    if pin is not None:
        return fetch_pinned_ca(target, pin)
    raise ConfigError(
        "nothing says which CA vouches for the verifier",
        "enrol with a join token that carries the CA's fingerprint, or give the CA certificate with --ca-file",
    )


def _has(pem: str, pin: bytes) -> bool:
    return any(hmac.compare_digest(fingerprint(one), pin) for one in certificates_of(pem))


def _read(path: Path) -> str:
    try:
        pem = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"CA file {path} cannot be read: {error}", "give a PEM file with --ca-file"
        ) from error
    if not certificates_of(pem):
        raise ConfigError(f"CA file {path} holds no PEM certificate", "give a PEM file with --ca-file")
    return pem
