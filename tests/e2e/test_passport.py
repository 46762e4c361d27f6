"""A machine shows what the verifier said of it: the agent keeps an EAR for one audience, a guard lets its bearer in."""

from __future__ import annotations

import subprocess

import aiohttp
import jwt
import pytest

from scripts.demo import BIN, Verifier, attest, guest_tpm, token
from tests import swtpm
from tests.e2e.test_attested_only import AUDIENCE
from tests.e2e.test_client import asking
from tests.e2e.test_nginx import free_port, listening, process
from verifier.client import EarError, EarFault, Tier


async def test_an_attester_gets_an_ear_for_whom_it_names(verifier):
    guest = await verifier.guest()
    challenge = await guest.challenge()
    answer = await guest.attest(challenge, want_ear=True, ear_audience=AUDIENCE)
    async with asking(verifier) as client:
        ear = await client.verify_ear(answer.json["ear"], audience=AUDIENCE)
        assert ear.standing.attester_id == guest.attester_id
        assert ear.standing.tier_at(verifier.clock.now()) is Tier.AFFIRMING
        with pytest.raises(EarError) as refused:
            await client.verify_ear(answer.json["ear"], audience="another")
    assert refused.value.fault is EarFault.AUDIENCE


@pytest.mark.parametrize("audience", ["", "two words", "a" * 257, "ü", 7])
async def test_an_audience_that_is_none_is_refused_before_anything_is_judged(verifier, audience):
    guest = await verifier.guest()
    before = verifier.rows()
    answer = await guest.attest(await guest.challenge(), want_ear=True, ear_audience=audience)
    assert (answer.status, answer.code) == (400, "malformed-request")
    assert verifier.rows() == before


@pytest.mark.swtpm
@pytest.mark.skipif(not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or tpm2-pytss is missing")
async def test_the_agent_s_file_opens_the_guard(tmp_path):
    """The commands alone: verifier, agent on a software TPM, guard."""
    swtpm.manufacture(tmp_path / "first", tmp_path / "tpm-vendor-ca")
    kept, port = tmp_path / "ear", free_port()
    with Verifier.running(tmp_path) as running, guest_tpm(tmp_path, 1) as tpm:
        attester_id = attest(running, tpm, 1, "uki-sb-on")["verdict"]["attester_id"]
        root, state = tmp_path / "guest1" / "root", tmp_path / "guest1" / "agent"
        again = [
            BIN / "attest-agent",
            "attest",
            "--once",
            "--tcti",
            tpm.tcti,
            "--root",
            root,
            "--state-dir",
            state,
        ]
        done = subprocess.run(
            [*again, "--ear-file", kept, "--ear-audience", AUDIENCE],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        presented = kept.read_text().strip()
        issuer = jwt.decode(presented, options={"verify_signature": False})["iss"]
        environment = {
            "ATTESTCTL_SERVER": running.url,
            "ATTESTCTL_CA": str(running.ca),
            "ATTESTCTL_TOKEN": token(running.config, "relying-party"),
        }
        guard = [BIN / "attestctl", "guard", "--listen", f"127.0.0.1:{port}", "--issuer", issuer]
        async with process(*guard, "--audience", AUDIENCE, **environment):
            await listening(port)
            async with aiohttp.ClientSession() as session:
                for token_text, status in ((presented, 200), (presented[:-5], 401)):
                    headers = {"Attestation-Result": token_text}
                    async with session.get(f"http://127.0.0.1:{port}/", headers=headers) as reply:
                        assert reply.status == status
                        assert status != 200 or reply.headers["X-Attester-Id"] == attester_id
    assert kept.stat().st_mode & 0o777 == 0o600
