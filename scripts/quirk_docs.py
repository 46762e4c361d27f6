"""docs/quirks.md: the trust argument, and every quirk from `verifier/quirk_texts.py`."""

from __future__ import annotations

from typing import Final

from verifier.appraisal.boot.deviation import BUDGET
from verifier.quirk_texts import QUIRKS
from verifier.quirks import Certainty, Quirk

_ARGUMENT: Final = """\
# Quirks of boot logs

A boot log must lead to the quoted PCRs, digest by digest. Some logs of honest machines do not: firmware leaves events out or logs what it
never extended, kernels join two logs blindly, clouds hand over an empty file. Others do not because somebody edited them. A quoted value
says nothing but where the chain ended, so the two look alike, and a log that does not replay is **contraindicated**. What this page adds
is a name: the finding says *which PCR* diverges, *after which event* as far as that can be known, and *which known quirk* fits. Findings,
evidence, `attestctl eventlog --json` and the API carry the name as `quirk`. The finding about the PCR that diverges first comes first.

```sh
tpm2_pcrread > pcrs.txt
attestctl eventlog /sys/kernel/security/tpm0/binary_bios_measurements --pcrs pcrs.txt    # or JSON: {"sha256": {"0": "hex"}}, or a bundle
```

## Tolerating a quirk

```yaml
tolerate:
  - quirk: vmware-pcr0
    pcrs: [0]
    severity: warning         # the default; `info` moves no verdict
    why: guests on this vCenter have it; the value is pinned below
```

It is a policy's own choice, quirk by quirk and PCR by PCR. Only that one finding becomes a warning (or information), under the code
`boot-log-quirk` with the policy's `why`. Everything else is judged as before; what is not tolerated by name in that very PCR stays
contraindicated. `attestctl policy lint` refuses a quirk in a PCR where it cannot occur, and one that leaves a PCR's events unproven where no
`pcr` rule pins the value (or `unjudged` says why that is right); it names the rules that such guests can never pass. `attestctl policy diff`
shows each PCR that is newly tolerated. `attestctl policy learn` proposes a toleration with the value pinned, says so, and never does it
silently.

## What is believed then, and why

| certainty | what stands behind the name | what a toleration makes proven |
|---|---|---|
| `harmless` | the parser read over something that extends nothing | (needs none) |
| `repaired` | the log's own events, less some or from another start, perhaps followed by known values, lead to the quoted value **in every quoted bank** | the digests that were used, in their order; no other |
| `proven` | arithmetic leads to the value only with something in between that the log does not have | nothing |
| `fits` | the signature fits | nothing |

1. **A repair is a preimage.** PCR values are chains of hashes. If extending `d1, d2, ..., dn` from a first value gives the quoted value, then
   these digests were extended in this order and no others, or somebody broke the hash: exactly what a log that replays proves, however
   `d1 ... dn` were found. So the search for them need not be trusted. Events that are left out were not extended; they are labels, out of every rule's
   reach.
2. **Known values may only follow.** A repair may end in values that are not in the log (a digest of zeros, the ExitBootServices strings). They
   come after every logged event, so they can move none of them to another side of a separator. Events that would have to be put *between*
   logged ones are named (`event-unlogged`) and not believed: whoever extends a Secure Boot variable late and takes firmware's separator out of the
   log would otherwise have it read as early.
3. **One story for all banks.** The same deviation must explain every quoted bank that fails; where another bank replays as it is, nothing
   may be left out. Otherwise nothing is believed.
4. **Names are hints.** `fits` is chosen by labels and by which other PCRs replay. A forger can have it: he then has what the policy gives to
   that name, a warning in place of a contraindication *for a PCR whose events stay unproven and whose value is pinned*. Data that contradicts
   its own digest fits nothing.
5. **Absence is no pass.** An empty log, a cut log and a tolerated PCR leave rules that need them `not-evaluated`.
6. **Nothing is kept across policies.** What is believed depends on what is tolerated, so the cache's key holds it (trust rule 5).
7. **The search is bounded**: at most BUDGET hashes per log, and none for a log that replays. Where they run out, a name may be missing;
   no verdict gets better.

A log that ends inside an event is read up to there, if at least one event before it is whole: `boot-log-cut`. Bytes that are no event log
(an undeclared algorithm, a PCR that does not exist, a size beyond any log) are refused with their offset, as before.

A `sequence` rule whose PCR does not replay stays `not-evaluated`; where its golden events lead to the quoted value, the finding says so: then it
is the log that is wrong, and not the boot.

**Not a quirk, and never tolerated:** a log from before hibernation. Its kernel keeps the log it booted with while the TPM holds the PCRs of the
boot that resumed it (nix-community/lanzaboote#628). That looks exactly like a TPM that was reset under a running kernel and filled with what
suits, so it stays contraindicated; the finding `boot-id-kept` beside it tells what happened. A kernel started by kexec shows the log of the boot
before and the PCRs of the same boot, which replay; where kexec damaged the log in memory, it is refused at the byte where it breaks.

## The quirks

This page is made from `verifier/quirk_texts.py` by `scripts/generate_docs.py`.
"""
_CERTAINTY: Final = {
    Certainty.HARMLESS: "harmless: read over by the parser, needs no toleration",
    Certainty.REPAIRED: "repaired: tolerated, what is left of the events is proven",
    Certainty.PROVEN: "proven, but no event is believed",
    Certainty.FITS: "fits: no event is believed",
}


def quirks() -> str:
    """The page as Markdown."""
    parts = [_ARGUMENT.replace("BUDGET", f"{BUDGET:,}")]
    for quirk in Quirk:
        entry = QUIRKS[quirk]
        where = f"PCR {_ranges(entry.pcrs)}" if entry.pcrs else "the log as a whole"
        parts += [
            f"### `{quirk.value}`",
            "",
            f"**{entry.title}.** {entry.explanation}",
            "",
            f"- *Where:* {where}",
            f"- *Shown by:* {entry.shown_by}",
            f"- *Certainty:* {_CERTAINTY[entry.certainty]}",
            f"- *Source:* {entry.source}",
            f"- *What to do:* {entry.remedy}",
            "",
        ]
    return "\n".join(parts)


def _ranges(pcrs: frozenset[int]) -> str:
    """`0-16, 23`."""
    runs: list[list[int]] = []
    for pcr in sorted(pcrs):
        if runs and runs[-1][-1] == pcr - 1:
            runs[-1].append(pcr)
        else:
            runs.append([pcr])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
