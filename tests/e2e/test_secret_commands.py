"""`attestctl secret` and `attest-verifier secrets` as people run them, against a verifier over HTTPS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from asyncio.subprocess import PIPE

from tests.harness import BIN, running, settings_for
from tests.secrets import KEY, ask, unsealed
from verifier.ports import Scope


async def test_a_secret_is_put_granted_shown_withdrawn_and_removed(verifier, tmp_path):
    guest, file = await verifier.guest(), tmp_path / "disk.key"
    file.write_bytes(KEY)
    done = await verifier.attestctl("secret")
    assert (done.code, done.out) == (0, "no secrets\n")

    done = await verifier.attestctl(
        "secret", "put", "disk-web", "--from-file", file, "--description", "[data] volume"
    )
    assert (done.code, done.out) == (0, f"disk-web: revision 1, {len(KEY)} bytes\n")
    assert "nobody may have it yet: attestctl secret grant disk-web" in done.err
    assert (await ask(guest)).code == "secret-unknown"

    grant = (
        "secret",
        "grant",
        "disk-web",
        "--attester",
        guest.attester_id,
        "--uses",
        "2",
        "--expires",
        "24h",
    )
    done = await verifier.attestctl(*grant)
    assert done.code == 0, done.err
    grant_id = done.out.splitlines()[1].split()[0]
    assert await unsealed(guest) == KEY

    done = await verifier.attestctl("secret", "show", "disk-web")
    assert done.code == 0
    for part in (
        "[data] volume",
        f"{len(KEY)} bytes, revision 1",
        grant_id,
        guest.attester_id,
        "any number",
        "1",
    ):
        assert (part in done.out) == (part != "any number"), part
    shown = (await verifier.attestctl("secret", "show", "disk-web", "--json")).json
    assert shown["grants"][0]["uses_left"] == 1
    done = await verifier.attestctl("secret", "list")
    assert [line.split()[0] for line in done.out.splitlines()] == ["name", "disk-web"]
    assert (await verifier.attestctl("secret", "list", "--json")).json == {"secrets": [shown]}

    done = await verifier.attestctl("secret", "withdraw", "disk-web", grant_id)
    assert (done.code, done.out) == (0, f"{grant_id} is withdrawn\n")
    assert (await ask(guest)).code == "secret-unknown"
    done = await verifier.attestctl("secret", "remove", "disk-web", "--json")
    assert (done.code, done.json) == (0, {"name": "disk-web", "removed": True})
    again = await verifier.attestctl("secret", "remove", "disk-web")
    assert (again.code, again.out) == (69, "")
    assert "404 not-found: no secret 'disk-web'" in again.err

    trail = await verifier.attestctl("audit", "--subject", "disk-web")
    for action in ("secret.put", "secret.granted", "secret.released", "secret.withdrawn", "secret.removed"):
        assert action in trail.out


async def test_a_secret_comes_from_stdin_byte_for_byte(verifier):
    guest, content = await verifier.guest(), os.urandom(64) + b"\n"
    process = await verifier.attestctl_running("secret", "put", "stdin", "--from-file", "-", stdin=PIPE)
    _, err = await process.communicate(content)
    assert process.returncode == 0, err
    await verifier.attestctl("secret", "grant", "stdin", "--policy", "secure-boot")
    assert await unsealed(guest, "stdin") == content


async def test_what_cannot_be_kept_or_granted_says_why(verifier, tmp_path):
    empty, large, good = (tmp_path / name for name in ("empty", "large", "good"))
    empty.write_bytes(b"")
    large.write_bytes(bytes(65537))
    good.write_bytes(b"x")
    for file, why in (
        (empty, "empty"),
        (large, "more than 65536 bytes"),
        (tmp_path / "absent", "cannot be read"),
    ):
        done = await verifier.attestctl("secret", "put", "disk", "--from-file", file)
        assert (done.code, done.out) == (65, ""), done.err
        assert why in done.err
    done = await verifier.attestctl("secret", "put", "a/b", "--from-file", good)
    assert done.code == 69
    assert "1 to 64 letters" in done.err
    await verifier.attestctl("secret", "put", "disk", "--from-file", good)
    for options, code, why in (
        ((), 69, "say who may have it"),
        (("--attester", "att-nobody"), 69, "no attester 'att-nobody'"),
        (("--label", "novalue"), 65, "novalue"),
        (("--policy", "web", "--expires", "soon"), 64, "--expires"),
    ):
        done = await verifier.attestctl("secret", "grant", "disk", *options)
        assert (done.code, done.out) == (code, ""), (options, done.err)
        assert why in done.err, options
    denied = await verifier.attestctl("secret", "put", "disk", "--from-file", good, scope=Scope.AUDITOR)
    assert denied.code == 77


async def test_rekey_says_what_it_did(tmp_path):
    key = tmp_path / "secrets.key"
    key.write_bytes(os.urandom(32))
    async with running(settings_for(tmp_path)) as verifier:
        for name in ("one", "two"):
            await verifier.service.services.secrets.put("default", name, b"x", None, "test")
    config = tmp_path / "rekey.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n[secrets]\nkeys = ["{key}"]\n')

    def rekey(*options: str) -> subprocess.CompletedProcess[str]:
        command = [BIN / "attest-verifier", "secrets", "rekey", "--config", config, *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = await asyncio.to_thread(rekey)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("2 of 2 secrets were encrypted anew")
    again = await asyncio.to_thread(rekey, "--json")
    assert json.loads(again.stdout) == {"secrets": 2, "encrypted": 0}
    key.write_bytes(b"short")
    wrong = await asyncio.to_thread(rekey)
    assert wrong.returncode == 69
    assert f"{key} has 5 bytes, not 32" in wrong.stderr
