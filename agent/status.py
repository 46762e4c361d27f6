"""`attest-agent status`: what this agent knows, without asking the verifier."""

from __future__ import annotations

from agent import commands
from agent.ak import read_key_certificates
from agent.commands import Output, ak_of
from agent.config import Settings
from agent.ek import read_endorsements
from agent.errors import AgentError, Exit
from agent.state import State, StateFile
from agent.transport import certificates_of, fingerprint


def status(settings: Settings, output: Output) -> int:
    """Show TPM, enrolment, trust and the last verdict. Exit code 0 unless the TPM cannot be used."""
    state = StateFile(settings.state_dir).load()
    tpm, exit_code = _tpm(settings)
    document = {
        "server": settings.server or state.server,
        "attester_id": state.attester_id,
        "ca_fingerprints": [fingerprint(pem).hex() for pem in certificates_of(state.ca_pem or "")],
        "ak": {
            "kind": ak_of(settings, state),
            "name": state.ak_name,
            "generation": state.ak_generation,
        },
        "ek": state.ek_slot,
        "tpm": tpm,
        "last_verdict": state.last_verdict,
        "pending": _pending(state),
    }
    output.result(document, _text(state, settings, tpm))
    return exit_code


def _pending(state: State) -> dict[str, str | None] | None:
    """The enrolment that waits for a person; its proof stays here."""
    pending = state.pending
    return None if pending is None else {"enrollment_id": pending.enrollment_id, "code": pending.code}


def _tpm(settings: Settings) -> tuple[dict[str, object], int]:
    try:
        tpm = commands.open_tpm(settings)
    except AgentError as error:
        return {"error": error.code, "message": error.message, "remedy": error.remedy}, error.exit_code
    try:
        properties = tpm.properties()
        endorsements = read_endorsements(tpm)
        keys = read_key_certificates(tpm)
    except AgentError as error:
        return {"error": error.code, "message": error.message, "remedy": error.remedy}, error.exit_code
    finally:
        tpm.close()
    return {
        "manufacturer": properties.manufacturer,
        "vendor": properties.vendor,
        "firmware": properties.firmware,
        "in_lockout": properties.in_lockout,
        "banks": properties.banks,
        "ek_certificates": [certificate.slot.name for certificate in endorsements.certificates],
        "ek_chain": len(endorsements.chain),
        "ak_certificates": [slot.name for slot, _ in keys.ak],
        "device_certificates": len(keys.device),
        "notes": (*endorsements.notes, *keys.notes),
    }, Exit.AFFIRMING


def _text(state: State, settings: Settings, tpm: dict[str, object]) -> str:
    last = state.last_verdict
    rows = [
        ("verifier", settings.server or state.server or "none configured"),
        ("attester", state.attester_id or "not enrolled"),
        (
            "trusted CA",
            ", ".join(fingerprint(pem).hex() for pem in certificates_of(state.ca_pem or "")) or "none yet",
        ),
        *_pending_rows(state),
        ("last verdict", f"{last.status}, valid until {last.valid_until}" if last else "none"),
    ]
    if "error" in tpm:
        rows += [("TPM", str(tpm["message"])), ("what to do", str(tpm["remedy"]))]
    else:
        lockout = "IN LOCKOUT" if tpm["in_lockout"] else "not in lockout"
        rows += [
            ("TPM", f"{tpm['manufacturer']} {tpm['vendor']}, firmware {tpm['firmware']}, {lockout}"),
            ("PCR banks", _list(tpm["banks"])),
            (
                "EK certificates",
                _list(tpm["ek_certificates"]) or "none: the verifier must know the EK otherwise",
            ),
        ]
        if tpm["ak_certificates"] or tpm["device_certificates"]:
            owned = [*_strings(tpm["ak_certificates"]), f"{tpm['device_certificates']} of the machine"]
            rows.append(("AK certificates", f"{', '.join(owned)} (use their key with --ak certified)"))
        rows += [("note", note) for note in _strings(tpm["notes"])]
    return "\n".join(f"{label:<16} {value}" for label, value in rows)


def _pending_rows(state: State) -> list[tuple[str, str]]:
    if state.pending is None:
        return []
    why = " (this machine is known with another TPM)" if state.pending.code == "identity-replaced" else ""
    number = state.pending.enrollment_id
    return [
        ("enrolment", f"{number} waits for an operator's approval{why}"),
        ("what to do", f"attestctl enrollments approve {number}"),
    ]


def _list(value: object) -> str:
    return ", ".join(_strings(value))


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []
