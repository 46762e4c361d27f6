"""`attestctl policy predict`: reference values from the files of an image, without booting it."""

from __future__ import annotations

import json as jsonlib
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.errors import VtpmAttestError
from verifier.policy.parse import parse_policy
from verifier.policy.writing import PolicyHead
from verifier.predict.authenticode import read_image
from verifier.predict.boot import Boot, Presence, predict_boot, predict_parts
from verifier.predict.errors import PredictionError
from verifier.predict.model import Prediction
from verifier.predict.pe import parse_pe
from verifier.predict.proposal import propose
from verifier.predict.uki import Uki, from_parts
from verifier.predict.variable_store import is_variable_store, read_variable_store
from verifier.predict.variables import (
    SecureBootVariables,
    concatenated,
    from_efivars,
    parse_guid,
    signature_database,
)
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

MAX_FILE: Final = 2 * 1024 * 1024 * 1024
_EFIVARS: Final = ("SecureBoot", "PK", "KEK", "db", "dbx", "dbt", "SbatLevelRT")
_POLICY: Final = "policy.yaml"

Switch = Literal["on", "off"]
Files = Annotated[list[Path], Parameter(consume_multiple=True, negative=())]


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """What boots.

    Attributes:
        uki: unified kernel image, the last image of the boot.
        chain: images before it, or all of them, in the order of loading: shim.efi grub.efi vmlinuz.
        kernel: instead of an image: the kernel it will be built of (PCRs 9 and 11 follow, 4 and 7 do not).
        initrd: the initrd it will be built of.
        cmdline: the kernel command line it will have.
        osrel: the os-release file it will have.
        uname: the kernel version it will have, as text.
        sbat: the .sbat section it will have, where that is not the stub's.
        stub: the systemd-stub it will be built of; needed with --kernel.
    """

    uki: Path | None = None
    chain: Files | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str | None = None
    osrel: Path | None = None
    uname: str | None = None
    sbat: Path | None = None
    stub: Path | None = None


@dataclass(frozen=True, kw_only=True)
class FirmwareState:
    """What it boots on.

    Attributes:
        secure_boot: whether Secure Boot is on; what the variables say by default.
        efivars: Secure Boot variables of such a machine: a folder like /sys/firmware/efi/efivars, the meta.json
            of an evidence folder, or an OVMF_VARS.fd.
        pk: platform key: signature list (.esl), update (.auth) or certificate.
        kek: key exchange keys, in the order of the variable.
        db: allowed signatures, in the order of the variable.
        dbx: forbidden signatures.
        owner: GUID of the owner of bare certificates.
        boot_action: whether firmware measures "Calling EFI Application from Boot Option".
    """

    secure_boot: Switch | None = None
    efivars: Path | None = None
    pk: Files | None = None
    kek: Files | None = None
    db: Files | None = None
    dbx: Files | None = None
    owner: str | None = None
    boot_action: Literal["always", "sometimes", "never"] = "always"


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """Where the policy goes.

    Attributes:
        out: write a policy here: a folder (policy.yaml and reference-values.yaml), or one file with both.
        id: id of the policy; the name of the folder or file by default.
        description: one line for people.
        severity: what a deviation means: contraindicated or warning.
    """

    out: Path | None = None
    id: str | None = None
    description: str = ""
    severity: str = "contraindicated"


def predict(
    *,
    image: Annotated[ImageFiles, Parameter(name="*")] = ImageFiles(),
    firmware: Annotated[FirmwareState, Parameter(name="*")] = FirmwareState(),
    policy: Annotated[PolicyFile, Parameter(name="*")] = PolicyFile(),
    bank: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256",
    json: bool = False,
) -> int:
    """Compute the PCR values that a boot of these files leads to, and a policy that expects them.

    Nothing is booted. What does not follow from the files is left out, with the reason.

    Examples:
        attestctl policy predict --uki linux.efi --efivars OVMF_VARS.fd --out policies/web

        attestctl policy predict --chain shimx64.efi grubx64.efi vmlinuz --efivars /sys/firmware/efi/efivars --json

        attestctl policy predict --kernel vmlinuz --initrd initrd.img --cmdline "root=/dev/vda2 ro" --osrel os-release --stub linuxx64.efi.stub

    Args:
        image: the files that boot.
        firmware: the machine's Secure Boot state.
        policy: the policy to write.
        bank: hash algorithm of the PCRs.
        json: print one JSON document.
    """
    try:
        prediction = _predict(image, firmware, HASH_BY_LABEL[bank])
        written = _write(prediction, policy) if policy.out is not None else None
    except VtpmAttestError as error:
        output.fail(error)
    if json:
        output.print_json(as_document(prediction) | {"policy": str(written) if written else None})
    else:
        _show(prediction)
        if written is not None:
            output.out.print(f"\nwrote {escape(str(written))}; it holds for guests of exactly these files")
    return 0


def _predict(image: ImageFiles, firmware: FirmwareState, bank: HashAlg) -> Prediction:
    built = [*(image.chain or []), *([image.uki] if image.uki is not None else [])]
    if image.kernel is not None:
        if built:
            raise PredictionError("give either built images (--uki, --chain) or the parts of one (--kernel)")
        return predict_parts(_parts(image, image.kernel), bank)
    if not built:
        raise PredictionError("nothing to predict: give --uki, --chain, or --kernel with --stub")
    variables = _variables(firmware)
    enabled = firmware.secure_boot == "on" if variables is None else variables.enabled
    if variables is None and firmware.secure_boot is None:
        raise PredictionError("say --secure-boot on or off, or give the variables (--efivars)")
    return predict_boot(
        Boot(
            images=tuple(read_image(path.name, _read(path)) for path in built),
            secure_boot=enabled,
            variables=variables,
            bank=bank,
            calling=Presence(firmware.boot_action),
        )
    )


def _parts(image: ImageFiles, kernel: Path) -> Uki:
    if image.stub is None:
        raise PredictionError("--kernel needs --stub: the stub decides what is measured and in which order")
    files = {".linux": kernel, ".initrd": image.initrd, ".osrel": image.osrel, ".sbat": image.sbat}
    texts = {".cmdline": image.cmdline, ".uname": image.uname}
    contents = {name: _read(path) for name, path in files.items() if path is not None}
    contents |= {name: text.encode() for name, text in texts.items() if text is not None}
    return from_parts(parse_pe(_read(image.stub)), contents)


def _variables(firmware: FirmwareState) -> SecureBootVariables | None:
    given = {"pk": firmware.pk, "kek": firmware.kek, "db": firmware.db, "dbx": firmware.dbx}
    if firmware.efivars is not None:
        if any(given.values()):
            raise PredictionError("give either --efivars or --pk, --kek, --db and --dbx")
        found = _read_efivars(firmware.efivars)
        if firmware.secure_boot is not None and (firmware.secure_boot == "on") != found.enabled:
            raise PredictionError(
                f"they have Secure Boot {'on' if found.enabled else 'off'}", where=str(firmware.efivars)
            )
        return found
    if not any(given.values()):
        return SecureBootVariables(enabled=False) if firmware.secure_boot == "off" else None
    owner = parse_guid(firmware.owner) if firmware.owner is not None else None
    pk, kek, db, dbx = (
        concatenated([signature_database(_read(path), owner) for path in paths or []])
        for paths in given.values()
    )
    return SecureBootVariables(enabled=firmware.secure_boot != "off", pk=pk, kek=kek, db=db, dbx=dbx)


def _read_efivars(path: Path) -> SecureBootVariables:
    if path.is_dir():
        names = [each for each in sorted(path.iterdir()) if _wanted(each.name)]
        return from_efivars({each.name: _read(each) for each in names})
    data = _read(path)
    if is_variable_store(data):
        return read_variable_store(data)
    return from_efivars(_from_json(path, data))


def _wanted(name: str) -> bool:
    plain = name.split("-", 1)[0]
    return "-" in name and (plain in _EFIVARS or plain.startswith("Mok"))


def _from_json(path: Path, data: bytes) -> Mapping[str, bytes]:
    """The `efivars` of an evidence folder's meta.json: names to base64."""
    try:
        found = jsonlib.loads(data)["efivars"]
        return {
            name: b64decode(text, validate=True) for name, text in found.items() if _wanted(name) and text
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PredictionError("neither a variable store nor JSON with `efivars`", where=path.name) from error


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE:
            raise PredictionError(f"is larger than {MAX_FILE} bytes", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise PredictionError(error.strerror or str(error), where=str(path)) from error


def _write(prediction: Prediction, policy: PolicyFile) -> Path:
    out = policy.out or Path()
    folder = out.is_dir() or not out.suffix or out.name == _POLICY
    target = out if not folder or out.name == _POLICY else out / _POLICY
    name = policy.id or (target.parent.resolve().name if folder else out.stem)
    head = PolicyHead(
        id=name,
        description=policy.description or "Predicted from the files of the image; nothing was booted.",
        bank=prediction.bank,
        severity=policy.severity,
    )
    proposal = propose(prediction, head)
    parse_policy(proposal.source)  # what we propose must itself be sound
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            target.write_text(proposal.policy)
            (target.parent / "reference-values.yaml").write_text(proposal.reference_values)
        else:
            target.write_text(proposal.source)
    except OSError as error:
        raise PredictionError(error.strerror or str(error), where=str(target)) from error
    return target


def as_document(prediction: Prediction) -> dict[str, object]:
    """The prediction as JSON: for every PCR the values it may have, the likeliest first, and every event."""
    return {
        "bank": prediction.bank.label,
        "secure_boot": prediction.secure_boot,
        "command_line": prediction.command_line,
        "pcrs": {
            str(index): [{"value": each.value.hex(), "when": each.when} for each in pcr.values]
            for index, pcr in sorted(prediction.pcrs.items())
        },
        "events": [
            {
                "pcr": event.pcr,
                "type": event.event_type.name,
                "label": event.label,
                "digest": event.digest.hex(),
                "optional": event.optional,
            }
            for event in prediction.events
        ],
        "unpredicted": {str(index): why for index, why in sorted(prediction.unpredicted.items())},
    }


def _show(prediction: Prediction) -> None:
    values = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("PCR", prediction.bank.label, "when"):
        values.add_column(column, overflow="fold")
    for index, pcr in sorted(prediction.pcrs.items()):
        for number, each in enumerate(pcr.values):
            untouched = "" if pcr.events else "untouched"
            values.add_row(str(index) if not number else "", each.value.hex(), escape(each.when) or untouched)
    for index, why in sorted(prediction.unpredicted.items()):
        values.add_row(str(index), "[yellow]not predicted[/]", escape(why))
    output.out.print(values)
    events = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("PCR", "event", "digest"):
        events.add_column(column, overflow="fold")
    for event in prediction.events:
        mark = " [dim](not on every machine)[/]" if event.optional else ""
        events.add_row(str(event.pcr), escape(event.text) + mark, event.digest.hex())
    output.out.print()
    output.out.print(events)
