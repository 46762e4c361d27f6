"""`attestctl policy sign` and `verify`: DSSE envelopes around policies."""

from __future__ import annotations

from pathlib import Path

from verifier.cli import output
from verifier.errors import PolicyError, VtpmAttestError
from verifier.policy.dsse import (
    PolicySigners,
    cosign,
    is_envelope,
    key_id,
    load_private_key,
    load_public_key,
    open_policy,
    parse_envelope,
    sign,
)
from verifier.policy.parse import parse_policy
from verifier.policy_files import read_file, read_policy_source


def sign_command(policy: Path, *, key: list[Path], out: Path, json: bool = False) -> int:
    """Sign a policy with its reference values. What is signed already gets the further signatures.

    A policy that no verifier would use is not signed. Make a key with
    `openssl genpkey -algorithm ed25519 -out signer.pem` (or `-algorithm EC -pkeyopt ec_paramgen_curve:P-256`), and
    its public half with `openssl pkey -in signer.pem -pubout -out signer.pub.pem`.

    Example:
        attestctl policy sign policies/uki-strict --key signer.pem --out uki-strict.dsse.json

    Args:
        policy: policy file, folder with policy.yaml, or signed policy.
        key: PEM private key, P-256 or Ed25519; may be given more than once.
        out: where to write the envelope; policy folders are searched for `*.dsse.json`.
        json: print one JSON document.
    """
    try:
        source = read_policy_source(policy)
        parsed = parse_policy(open_policy(source, None).payload)
        keys = [load_private_key(read_file(path), str(path)) for path in key]
        signed = cosign(parse_envelope(source), keys) if is_envelope(source) else sign(source, keys)
    except VtpmAttestError as error:
        output.fail(error)
    output.write(out, signed)
    signers = [key_id(each.public_key()) for each in keys]
    if json:
        output.print_json({"out": str(out), "id": parsed.id, "revision": parsed.revision, "signers": signers})
        return 0
    output.out.print(f"wrote {out}: {parsed.id}, revision {parsed.revision[:16]}")
    for signer in signers:
        output.out.print(f"[dim]signed by {signer}[/]")
    return 0


def verify_command(policy: Path, *, key: list[Path], json: bool = False) -> int:
    """Check that one of the keys signed a policy. Exit code: 0, or 65 when none did.

    Example:
        attestctl policy verify uki-strict.dsse.json --key signer.pub.pem

    Args:
        policy: signed policy.
        key: PEM public key, P-256 or Ed25519; may be given more than once.
        json: print one JSON document.
    """
    try:
        signers = PolicySigners.of(load_public_key(read_file(path), str(path)) for path in key)
        opened = open_policy(read_policy_source(policy), signers)
        parsed = parse_policy(opened.payload)
    except PolicyError as error:
        if json:
            output.print_json({"ok": False, "code": error.reason.value, "error": str(error)})
            return output.exit_code(error)
        output.fail(error)
    if json:
        output.print_json(
            {"ok": True, "id": parsed.id, "revision": parsed.revision, "signers": list(opened.signers)}
        )
    else:
        output.out.print(f"[green]ok[/] {parsed.id}, revision {parsed.revision[:16]}")
        for signer in opened.signers:
            output.out.print(f"signed by {signer}")
    return 0
