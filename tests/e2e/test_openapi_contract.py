"""The served OpenAPI document, held against the running service by schemathesis: nothing undocumented, no 5xx.

Each kind of record exists, so that requests reach past "no such record". `/v1/events` never ends and is left to its own
tests.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from tests.harness import Guest, Here, boot_log, running, settings_for
from verifier.ports import Scope

ST = Path(sys.executable).parent / "st"
WEBHOOK = {"url": "https://hooks.example.com/in", "kinds": ["verdict.changed"]}
CONFIG = """\
continue-on-failure = true
color = false
request-timeout = 20.0
headers = {{ Authorization = "Bearer {token}" }}

[generation]
max-examples = {examples}
no-shrink = true

[output.truncation]
max-payload-size = 600
max-lines = 12

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "408", "409", "410", "413", "415", "422", "429"]

# A body may be of the right form and still name what does not exist, or prove nothing.
[checks.positive_data_acceptance]
enabled = false

[[operations]]
include-path = "/v1/events"
enabled = false
"""
RECORDS = """
[dictionaries.{dictionary}]
values = {values!r}

[[operations]]
include-path-regex = "^{prefix}/[{{]"
parameters = {{ "path.id" = {{ dictionary = "{dictionary}", probability = 0.8 }} }}
"""


async def _records(verifier) -> dict[str, list[str]]:
    """One of everything, and the ids by which the API knows it, by path prefix."""
    good = await verifier.guest(1)
    await good.speak()
    bad = Guest.booted(verifier, 2, boot_log(secure=False))
    await bad.enroll()
    await bad.speak()
    twin = good.copied()
    await twin.speak()
    await good.speak()
    webhook = await verifier.post("/v1/webhooks", WEBHOOK, scope=Scope.OPERATOR)
    assignment = await verifier.call(
        "PUT", "/v1/assignments", scope=Scope.OPERATOR, json={"policy": "secure-boot", "mode": "observe"}
    )
    assert (webhook.status, assignment.status) == (201, 200), (webhook.content, assignment.content)
    begun = await verifier.post(
        "/v1/enrollments",
        Guest.booted(verifier, 3).enrollment(await verifier.token(Scope.JOIN)),
    )
    incidents = (await verifier.get("/v1/incidents")).json["incidents"]
    return {
        "/v1/attesters": [good.attester_id, bad.attester_id],
        "/v1/policies": ["secure-boot"],
        "/v1/enrollments": [begun.json["enrollment_id"]],
        "/v1/webhooks": [webhook.json["webhook"]["id"]],
        "/v1/assignments": [assignment.json["id"]],
        "/v1/incidents": [one["id"] for one in incidents],
    }


async def _schemathesis(verifier, directory: Path, *arguments: str, examples: int) -> tuple[int, str]:
    records = await _records(verifier)
    assert all(records.values()), records
    token = await verifier.token(Scope.ADMIN)
    text = CONFIG.format(token=token, examples=examples)
    for prefix, values in records.items():
        text += RECORDS.format(prefix=prefix, dictionary=prefix.rpartition("/")[2], values=values)
    config = directory / "schemathesis.toml"
    config.write_text(text)
    process = await asyncio.create_subprocess_exec(
        ST, "--config-file", config, "run", f"{verifier.url}/openapi.json", "--url", verifier.url,
        *arguments, stdout=PIPE, stderr=STDOUT, cwd=directory,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode(errors="replace")


async def test_the_service_answers_as_its_openapi_document_says(tmp_path):
    settings = settings_for(tmp_path, TRANSPARENCY_INTERVAL="0s")
    async with running(settings, workers=Here()) as verifier:
        # Whoever asks for a proof waits for the log to be signed.
        signing = asyncio.create_task(verifier.service.services.sequencer.run())
        code, out = await _schemathesis(
            verifier, tmp_path, "--phases", "coverage,fuzzing", "--seed", "1", examples=20
        )
        signing.cancel()
    assert code == 0, out
    assert "Tested: 0" not in out, out
