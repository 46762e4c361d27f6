"""`Tpm` by tpm2-pytss ESAPI. The only module that imports a TPM library, and only when one is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from agent.errors import BankMissingError, NoTpmError, TpmError, TpmLibraryMissingError
from agent.templates import HASHES, TemplateError, activation_branches, name_of, parse_public
from agent.tpm import TBS, Key, Quote, Selection, TpmProperties
from agent.tpm_errors import explain
from agent.tpm_library import load_tpm_library

if TYPE_CHECKING:
    from agent.windows.tcti import TbsTcti

os.environ.setdefault(
    "TSS2_LOG", "all+NONE"
)  # the C library would write its own view of each error to stderr

T = TypeVar("T")

_NV_RANGE: Final = 0x01000000
_PERSISTENT_RANGE: Final = 0x81000000
_PCRS_PER_READ: Final = 8
"""TPML_DIGEST holds eight digests (TPM 2.0 Part 2, section 10.9.3)."""
_MAX_HANDLES: Final = 254
_DEFAULT_NV_BUFFER: Final = 512
_PT_FIXED: Final = 0x100
_PT_MANUFACTURER: Final = _PT_FIXED + 5
_PT_VENDOR: Final = tuple(range(_PT_FIXED + 6, _PT_FIXED + 10))
_PT_FIRMWARE: Final = (_PT_FIXED + 11, _PT_FIXED + 12)
_PT_NV_BUFFER_MAX: Final = _PT_FIXED + 44
_PT_PERMANENT: Final = 0x200
_IN_LOCKOUT: Final = 1 << 9


def open_tpm(tcti: str) -> EsapiTpm:
    """Open the TPM behind a TCTI such as `device:/dev/tpmrm0` or `swtpm:host=127.0.0.1,port=2321`."""
    try:
        load_tpm_library()
        from tpm2_pytss.ESAPI import ESAPI  # noqa: PLC0415 - an extra, and slow to import
        from tpm2_pytss.TSS2_Exception import TSS2_Exception  # noqa: PLC0415
    except ImportError as error:
        raise TpmLibraryMissingError(
            f"tpm2-pytss cannot be loaded: {error}",
            "install the agent with its TPM extra: `pip install 'vtpm-attest-agent[tpm]'` "
            "(Debian: apt install python3-tpm2-pytss)",
        ) from error
    channel = _tbs() if tcti == TBS else None
    try:
        context = ESAPI(tcti if channel is None else channel.context)
    except TSS2_Exception as error:
        raise NoTpmError(
            f"the TPM at {tcti} does not answer: {error}",
            "check that the simulator or device is there and that no other program holds it",
            rc=int(error.rc),
        ) from error
    except (RuntimeError, ValueError) as error:
        raise NoTpmError(
            f"cannot use TCTI {tcti!r}: {error}", "write it as NAME:OPTIONS, see tpm2-tss"
        ) from error
    return EsapiTpm(context, tcti, channel)


def _tbs() -> TbsTcti:
    from agent.windows.tbs import Tbs, load_library  # noqa: PLC0415 - Windows alone
    from agent.windows.tcti import TbsTcti  # noqa: PLC0415

    return TbsTcti(Tbs(load_library()).open())


class EsapiTpm:
    """A TPM opened by `open_tpm`. Transient objects never outlive the block that made them."""

    def __init__(self, context: Any, tcti: str, channel: TbsTcti | None = None) -> None:  # noqa: ANN401 - tpm2-pytss has no types
        import tpm2_pytss  # noqa: PLC0415 - loaded by now

        self._tss = tpm2_pytss
        self._esys = context
        self.tcti = tcti
        self._channel = channel
        self._nv_buffer: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        esys, self._esys = self._esys, None
        if esys is not None:
            esys.close()
        if self._channel is not None:
            self._channel.close()

    def _try(self, doing: str, command: Callable[[], T]) -> T:
        """Run one ESAPI call; translate its error into ours, naming what was being done."""
        try:
            return command()
        except self._tss.TSS2_Exception as error:
            if self._channel is not None and self._channel.failure is not None:
                raise self._channel.failure from error
            raise explain(int(error.rc), doing, str(error)) from error

    # --- what it is

    def properties(self) -> TpmProperties:
        """Manufacturer, firmware, lockout state and active banks."""
        fixed = self._properties(_PT_FIXED)
        permanent = self._properties(_PT_PERMANENT).get(_PT_PERMANENT, 0)
        firmware = [fixed.get(number, 0) for number in _PT_FIRMWARE]
        return TpmProperties(
            manufacturer=_text([fixed.get(_PT_MANUFACTURER, 0)]),
            vendor=_text([fixed.get(number, 0) for number in _PT_VENDOR]),
            firmware=".".join(f"{word:08x}" for word in firmware),
            in_lockout=bool(permanent & _IN_LOCKOUT),
            banks=self._banks(),
        )

    def _properties(self, first: int) -> dict[int, int]:
        answer = self._capability("reading TPM properties", self._tss.TPM2_CAP.TPM_PROPERTIES, first, 127)
        return {int(item.property): int(item.value) for item in answer[1].data.tpmProperties}

    def _capability(self, doing: str, kind: int, first: int, count: int) -> Any:  # noqa: ANN401
        """The answer whole: it must stay alive while its parts are read, which point into memory it owns."""
        return self._try(doing, lambda: self._esys.get_capability(kind, first, count))

    def _banks(self) -> tuple[str, ...]:
        answer = self._try(
            "reading PCR banks", lambda: self._esys.get_capability(self._tss.TPM2_CAP.PCRS, 0, 1)
        )
        return tuple(
            HASHES[int(item.hash)]
            for item in answer[1].data.assignedPCR
            if int(item.hash) in HASHES and any(bytes(item.pcrSelect))
        )

    def _handles(self, first: int) -> tuple[int, ...]:
        found: list[int] = []
        more = True
        while more:
            start = found[-1] + 1 if found else first
            answer = self._capability("listing handles", self._tss.TPM2_CAP.HANDLES, start, _MAX_HANDLES)
            page = [int(handle) for handle in answer[1].data.handles]
            found += page
            more = bool(answer[0]) and bool(page)
        return tuple(found)

    # --- NV

    def nv_indices(self) -> tuple[int, ...]:
        """All defined NV indices."""
        return self._handles(_NV_RANGE)

    def nv_read(self, index: int) -> bytes:
        """An index whole, in pieces the TPM can deliver; by the index's own authorisation, else the owner's."""
        doing = f"reading NV index {index:#010x}"
        handle = self._try(doing, lambda: self._esys.tr_from_tpmpublic(index))
        try:
            public = self._try(doing, lambda: self._esys.nv_read_public(handle))
            size = int(public[0].nvPublic.dataSize)
            try:
                return self._nv_read(handle, size, None, doing)
            except TpmError:
                return self._nv_read(handle, size, self._tss.ESYS_TR.OWNER, doing)
        finally:
            self._esys.tr_close(handle)

    def _nv_read(self, handle: int, size: int, authority: int | None, doing: str) -> bytes:
        content = b""
        while len(content) < size:
            count, offset = min(self._nv_buffer_max(), size - len(content)), len(content)
            piece = self._nv_piece(handle, authority, count, offset, doing)
            if not piece:
                raise TpmError(
                    f"{doing}: the TPM returned nothing at byte {offset}", "read it with tpm2_nvread"
                )
            content += piece
        return content

    def _nv_piece(self, handle: int, authority: int | None, count: int, offset: int, doing: str) -> bytes:
        return self._try(
            doing, lambda: bytes(self._esys.nv_read(handle, count, offset, auth_handle=authority))
        )

    def _nv_buffer_max(self) -> int:
        if self._nv_buffer is None:
            self._nv_buffer = self._properties(_PT_NV_BUFFER_MAX).get(_PT_NV_BUFFER_MAX) or _DEFAULT_NV_BUFFER
        return self._nv_buffer

    def nv_attributes(self, index: int) -> int | None:
        """TPMA_NV of an index; the TPM is asked, nothing is remembered."""
        if index not in self._handles_from(index):
            return None
        with self._nv(index, f"looking at NV index {index:#010x}") as (_, public):
            return int(public.attributes)

    def nv_public(self, index: int) -> bytes | None:
        """TPMS_NV_PUBLIC of an index, as the TPM has it now."""
        if index not in self._handles_from(index):
            return None
        with self._nv(index, f"looking at NV index {index:#010x}") as (_, public):
            return bytes(public.marshal())

    def _handles_from(self, first: int) -> tuple[int, ...]:
        answer = self._capability("listing NV indices", self._tss.TPM2_CAP.HANDLES, first, 1)
        return tuple(int(handle) for handle in answer[1].data.handles)

    def nv_define_extend(self, index: int, attributes: int, size: int) -> None:
        """TPM2_NV_DefineSpace with owner authorisation."""
        tss = self._tss
        public = tss.TPMS_NV_PUBLIC(
            nvIndex=index,
            nameAlg=tss.TPM2_ALG.SHA256,
            attributes=tss.TPMA_NV(attributes),
            dataSize=size,
        )
        handle = self._try(
            f"defining NV index {index:#010x}",
            lambda: self._esys.nv_define_space(None, tss.TPM2B_NV_PUBLIC(nvPublic=public)),
        )
        self._esys.tr_close(handle)

    def nv_extend(self, index: int, data: bytes) -> None:
        """TPM2_NV_Extend."""
        doing = f"extending NV index {index:#010x}"
        with self._nv(index, doing) as (handle, _):
            self._try(doing, lambda: self._esys.nv_extend(handle, data))

    def nv_certify(self, ak: Key, index: int, size: int, qualifying_data: bytes) -> Quote:
        """TPM2_NV_Certify with the key's own scheme."""
        tss, doing = self._tss, f"certifying NV index {index:#010x}"
        scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL)
        with self._nv(index, doing) as (handle, _):
            attest, signature = self._try(
                doing,
                lambda: self._esys.nv_certify(
                    tss.ESYS_TR(ak.handle), handle, tss.TPM2B_DATA(qualifying_data), scheme, size
                ),
            )
        return Quote(bytes(attest), signature.marshal())

    @contextmanager
    def _nv(self, index: int, doing: str) -> Iterator[tuple[Any, Any]]:
        """The library's handle of an index, and its TPMS_NV_PUBLIC."""
        handle = self._try(doing, lambda: self._esys.tr_from_tpmpublic(index))
        try:
            public = self._try(doing, lambda: self._esys.nv_read_public(handle))
            # The TPM2B must stay: it owns the memory its part points into.
            yield handle, public[0].nvPublic
        finally:
            self._esys.tr_close(handle)

    # --- keys

    def persistent_handles(self) -> tuple[int, ...]:
        """Handles of persistent objects."""
        return self._handles(_PERSISTENT_RANGE)

    @contextmanager
    def persistent(self, handle: int) -> Iterator[Key]:
        """Use a persistent key."""
        doing = f"opening the key at {handle:#010x}"
        reference = self._try(doing, lambda: self._esys.tr_from_tpmpublic(handle))
        try:
            parts = self._try(doing, lambda: self._esys.read_public(reference))
            yield self._key(reference, parts[0].marshal())
        finally:
            self._esys.tr_close(reference)

    @contextmanager
    def primary(self, template: bytes) -> Iterator[Key]:
        """Make an endorsement primary and flush it afterwards."""
        wanted, _ = self._tss.TPM2B_PUBLIC.unmarshal(template)
        made = self._try(
            "creating a key in the endorsement hierarchy",
            lambda: self._esys.create_primary(None, wanted, self._tss.ESYS_TR.ENDORSEMENT),
        )
        try:
            yield self._key(made[0], made[1].marshal())
        finally:
            self._esys.flush_context(made[0])

    def _key(self, reference: int, public: bytes) -> Key:
        try:
            return Key(int(reference), public, name_of(public))
        except TemplateError as error:
            raise TpmError(f"a key of this TPM cannot be used: {error}", "choose another key") from error

    def activate_credential(self, ak: Key, ek: Key, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """TPM2_ActivateCredential with the EK authorised by its policy."""
        tss = self._tss
        blob, _ = tss.TPM2B_ID_OBJECT.unmarshal(credential_blob)
        secret, _ = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(encrypted_secret)
        with self._ek_session(ek) as session:
            return self._try(
                "activating the credential",
                lambda: bytes(
                    self._esys.activate_credential(
                        tss.ESYS_TR(ak.handle),
                        tss.ESYS_TR(ek.handle),
                        blob,
                        secret,
                        session1=tss.ESYS_TR.PASSWORD,
                        session2=session,
                    )
                ),
            )

    @contextmanager
    def _ek_session(self, ek: Key) -> Iterator[int]:
        """A policy session that satisfies `ek`'s policy; flushed if the command it was for did not end it."""
        tss = self._tss
        area = parse_public(ek.public)
        try:
            branches = activation_branches(area)
        except TemplateError as error:
            raise TpmError(f"the EK cannot be used: {error}", "choose another EK with --ek") from error
        session = self._try(
            "starting a policy session",
            lambda: self._esys.start_auth_session(
                tss.ESYS_TR.NONE,
                tss.ESYS_TR.NONE,
                tss.TPM2_SE.POLICY,
                tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL),
                getattr(tss.TPM2_ALG, area.name_alg.upper()),
            ),
        )
        try:
            self._try(
                "authorising the EK (PolicySecret endorsement)",
                lambda: self._esys.policy_secret(tss.ESYS_TR.ENDORSEMENT, session),
            )
            if branches:
                digests = tss.TPML_DIGEST([tss.TPM2B_DIGEST(branch) for branch in branches])
                self._try("authorising the EK (PolicyOR)", lambda: self._esys.policy_or(session, digests))
            yield session
        finally:
            self._esys.flush_context(session)

    # --- PCRs

    def quote(self, ak: Key, qualifying_data: bytes, selection: Selection) -> Quote:
        """TPM2_Quote with the key's own scheme."""
        wanted, data = self._selection(selection), self._tss.TPM2B_DATA(qualifying_data)
        attest, signature = self._try(
            "quoting", lambda: self._esys.quote(self._tss.ESYS_TR(ak.handle), wanted, data)
        )
        return Quote(bytes(attest), signature.marshal())

    def read_pcrs(self, bank: str, pcrs: Sequence[int]) -> dict[int, bytes]:
        """TPM2_PCR_Read, eight registers at a time."""
        values: dict[int, bytes] = {}
        for first in range(0, len(pcrs), _PCRS_PER_READ):
            part = pcrs[first : first + _PCRS_PER_READ]
            wanted = self._selection({bank: part})
            digests = self._pcr_digests(wanted)
            if len(digests) != len(part):
                raise BankMissingError(
                    f"PCRs {', '.join(map(str, part))} of bank {bank} cannot be read; active banks: "
                    f"{', '.join(self._banks()) or 'none'}",
                    f"switch on bank {bank} in the firmware (or `tpm2_pcrallocate`), or have the verifier's policy "
                    "use a bank this TPM has",
                )
            values.update(zip(part, digests, strict=True))
        return values

    def _pcr_digests(self, wanted: Any) -> list[bytes]:  # noqa: ANN401 - tpm2-pytss has no types
        answer = self._try("reading PCRs", lambda: self._esys.pcr_read(wanted))
        return [bytes(digest) for digest in answer[2]]

    def _selection(self, selection: Selection) -> Any:  # noqa: ANN401 - tpm2-pytss has no types
        text = "+".join(f"{bank}:{','.join(map(str, pcrs))}" for bank, pcrs in selection.items())
        try:
            return self._tss.TPML_PCR_SELECTION.parse(text)
        except (ValueError, KeyError) as error:
            raise BankMissingError(
                f"PCR selection {text!r} cannot be quoted: {error}", "correct the PCRs asked for"
            ) from error


def _text(words: Sequence[int]) -> str:
    raw = b"".join(word.to_bytes(4) for word in words)
    return raw.rstrip(b"\0 ").decode("ascii", "replace").replace("\0", "")
