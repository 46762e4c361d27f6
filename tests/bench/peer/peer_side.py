"""Keylime's half: run by the interpreter of its own environment, with the folder of inputs; prints JSON.

It calls what Keylime's verifier calls for an attestation, with nothing of it changed. Seconds of CPU, those of the
programs it starts (tpm2_eventlog) included; the fastest of some runs.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import logging
import resource
import sys
from pathlib import Path

logging.disable(logging.CRITICAL)

from keylime import json as keylime_json  # noqa: E402, F401
from keylime.agentstates import AgentAttestState  # noqa: E402
from keylime.common.algorithms import Hash  # noqa: E402
from keylime.ima import ima  # noqa: E402
from keylime.mba import mba  # noqa: E402
from keylime.mba.elparsing import tpm2_tools_elparser  # noqa: E402
from keylime.policy import create_mb_policy  # noqa: E402
from keylime.tpm.tpm_main import Tpm  # noqa: E402

FOLDER = Path(sys.argv[1])
QUOTES = json.loads((FOLDER / "quotes.json").read_text())
LOG = base64.b64encode((FOLDER / "boot.log").read_bytes()).decode()


def cpu():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def seconds(work, rounds, repeats):
    work()
    found = []
    for _ in range(rounds):
        before = cpu()
        for _ in range(repeats):
            work()
        found.append((cpu() - before) / repeats)
    return min(found)


def reference_state():
    """What Keylime's own tool makes of this log."""
    failure, parsed = tpm2_tools_elparser.parse_binary_bootlog(base64.b64decode(LOG))
    assert not failure, failure.get_event_ids()
    events = parsed["events"]
    state = {
        "has_secureboot": True,
        "scrtm_and_bios": [
            {**create_mb_policy.get_s_crtm(events), **create_mb_policy.get_platform_firmware(events)}
        ],
        **create_mb_policy.get_keys(events),
        **create_mb_policy.get_mok(events),
        **create_mb_policy.get_vendor_db(events),
    }
    state.update(create_mb_policy.get_kernel(events, True))
    return json.dumps(state)


def check(kind, golden, **more):
    one = QUOTES[kind]
    failure = Tpm().check_quote(
        AgentAttestState("bench"), one["nonce"], None, one["quote"], one["ak_tpm"], golden,
        hash_alg=Hash.SHA256, **more,
    )  # fmt: skip
    return failure.get_event_ids()


def main():
    mba.load_imports()
    golden = json.loads((FOLDER / "golden.json").read_text())
    rows = {}
    for kind in ("rsa", "ecc"):
        assert check(kind, golden) == []
        assert check(kind, golden | {"4": ["00" * 32]}) != []
        rows[f"quote {kind}"] = seconds(lambda kind=kind: check(kind, golden), 7, 100)
    state = reference_state()
    boot = {"mb_measurement_list": LOG, "mb_policy": state, "mb_policy_name": "example"}
    refused = check("ecc", {}, **boot)
    rows["boot log"] = seconds(lambda: mba.bootlog_parse(LOG, "sha256"), 5, 5)
    rows["first boot"] = seconds(lambda: check("ecc", {}, **boot), 5, 5)
    policy = ima.deserialize_runtime_policy((FOLDER / "runtime.json").read_text())
    lines, pcr10 = (FOLDER / "ima.txt").read_text().split("\n"), (FOLDER / "pcr10").read_text()

    def judge(listed):
        _, failure = ima.process_measurement_list(
            AgentAttestState("bench"), listed, policy, pcrval=pcr10, hash_alg=Hash.SHA256
        )
        return failure.get_event_ids()

    assert judge(lines) == []
    assert judge([*lines[:9], *lines[10:]]) != []
    rows["ima list"] = seconds(lambda: judge(lines), 3, 1)
    print(
        json.dumps({"version": importlib.metadata.version("keylime"), "rows": rows, "boot_refused": refused})
    )


main()
