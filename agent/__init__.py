"""The in-guest agent of vtpm-attest: proves to a verifier how this machine booted.

It starts on every boot, so what it imports is kept small: records are msgspec structs (a class costs a tenth of a
dataclass at import), the TPM library is loaded when a TPM is opened, and each command loads what only it needs.
"""
