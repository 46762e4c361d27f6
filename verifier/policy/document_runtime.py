"""The `runtime` part of a policy document as written."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from verifier.policy.document_parts import about, choice
from verifier.policy.runtime.reference import Handling, SignatureUse

_HANDLINGS: Final = tuple(each.value for each in Handling)
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of a runtime set's text.")]
Keyring = Annotated[str, Meta(pattern=r"^[!-~]{1,64}$", description="A keyring of the kernel: `.ima`.")]
Why = Annotated[str, Meta(min_length=10, description="For the next reader.")]


class _Document(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class SetDocument(_Document, frozen=True, kw_only=True):
    """A runtime set, named by its digest (`attestctl runtime show` prints it)."""

    sha256: Sha256
    name: Annotated[str, about("Its name, which is checked, for people.")] = ""


class ExcludeDocument(_Document, frozen=True, kw_only=True):
    """Paths that are not judged, whatever lies there."""

    paths: Annotated[
        list[str],
        Meta(
            min_length=1, max_length=1024, description="Globs (`/tmp/**`), or `regex:` and an RE2 expression."
        ),
    ]
    why: Why


class SignaturesDocument(_Document, frozen=True, kw_only=True):
    """Signatures of files (`security.ima`), as the templates ima-sig and ima-sigv2 list them."""

    use: Annotated[
        str,
        choice(
            "`accepted`: a file is good if a set knows it or its signature is good; `required`: by that only.",
            tuple(each.value for each in SignatureUse),
        ),
    ]
    keys: Annotated[
        list[str],
        Meta(
            max_length=256, description="Keys that may sign, in PEM: X.509 certificates, or bare public keys."
        ),
    ] = []
    learn_keyrings: Annotated[
        list[Keyring],
        Meta(max_length=16, description="Keyrings whose keys, as they are measured, may sign from there on."),
    ] = []


class TargetDocument(_Document, frozen=True, kw_only=True):
    """A device-mapper target that may be loaded."""

    target: Annotated[
        str, Meta(min_length=1, max_length=64, description="`target_name`: verity, crypt, linear.")
    ]
    attributes: Annotated[
        dict[str, str], about("Attributes it must have with exactly these values (`root_digest`).")
    ] = {}


class RuntimeDocument(_Document, frozen=True, kw_only=True):
    """What the machine may run, by its IMA list (docs/runtime-policies.md). A list that is not sent is no pass."""

    sets: Annotated[list[SetDocument], Meta(max_length=64, description="What is good.")] = []
    staged: Annotated[
        list[SetDocument],
        Meta(max_length=64, description="Sets of an announced update: what only they know is a warning."),
    ] = []
    excludes: Annotated[list[ExcludeDocument], Meta(max_length=256, description="What is not judged.")] = []
    unknown_files: Annotated[
        str,
        choice(
            "A file of a path that no set has; another content of a known path is always denied.", _HANDLINGS
        ),
    ] = "deny"
    unknown_modules: Annotated[str, choice("Likewise for a kernel module.", _HANDLINGS)] = "deny"
    violations: Annotated[
        str,
        choice("Files written while they were measured or in use (ToMToU, open writers).", _HANDLINGS),
    ] = "deny"
    signatures: Annotated[SignaturesDocument | None, about("None: signatures say nothing.")] = None
    unknown_keys: Annotated[
        str, choice("A key that was loaded onto a keyring, and that no set has.", _HANDLINGS)
    ] = "deny"
    ignored_keyrings: Annotated[
        list[Keyring], Meta(max_length=64, description="Keyrings whose keys are not judged.")
    ] = []
    policy_loads: Annotated[
        str, choice("An IMA policy that was loaded, and whose file no set has.", _HANDLINGS)
    ] = "deny"
    critical_data: Annotated[
        str, choice("Other data the kernel measured (`ima-buf`), and no set has.", _HANDLINGS)
    ] = "deny"
    device_mapper: Annotated[
        list[TargetDocument] | None,
        about("Targets that may be loaded, and no others; left out: as `critical_data` says."),
    ] = None
