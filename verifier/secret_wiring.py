"""A part of the composition root: secrets for machines, from settings to use cases."""

from __future__ import annotations

from verifier.keys.secret_box import open_keys
from verifier.ports import Clock, Random, Store
from verifier.service.attestation import AttestationService
from verifier.service.recorder import Recorder
from verifier.service.secret_release import SecretReleases
from verifier.service.secrets import SecretService
from verifier.settings import Settings


def wire_secrets(
    settings: Settings,
    store: Store,
    recorder: Recorder,
    attestations: AttestationService,
    clock: Clock,
    random: Random,
) -> tuple[SecretService, SecretReleases]:
    """What operators keep, and what gives it out. Raises `VerifierFault` for a key that cannot be used."""
    box = open_keys(settings.secrets.keys, settings.state_dir)
    kept = SecretService(store=store, recorder=recorder, clock=clock, random=random, box=box)
    releases = SecretReleases(
        store=store, recorder=recorder, attestations=attestations, box=box, clock=clock, random=random
    )
    return kept, releases
