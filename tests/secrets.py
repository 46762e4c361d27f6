"""A guest that asks for secrets as the agent does, with the simulator's TPM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from agent.release import Asking, begin, opened
from agent.wire.codec import decode
from agent.wire.secrets import ReleaseReply
from tests.harness import Answer, Guest, Harness, b64, unb64
from verifier.ports import Scope

KEY = b"correct horse battery staple\x00\xff\n"
NAME = "disk-web"


async def put(verifier: Harness, name: str = NAME, content: bytes = KEY) -> Any:
    answer = await verifier.call(
        "PUT", f"/v1/secrets/{name}", scope=Scope.OPERATOR, json={"content": b64(content)}
    )
    assert answer.status == 200, answer.content
    return answer.json


async def grant(verifier: Harness, name: str = NAME, **who: Any) -> Any:
    answer = await verifier.post(f"/v1/secrets/{name}/grants", who, scope=Scope.OPERATOR)
    assert answer.status == 201, answer.content
    return answer.json


@dataclass
class Question:
    """One question for a secret: the body to send, and what opens the answer."""

    guest: Guest
    asking: Asking
    over: bytes
    body: dict[str, Any]

    @property
    def path(self) -> str:
        return f"/v1/secrets/{self.asking.name}/release"

    async def send(self, verifier: Harness | None = None) -> Answer:
        return await (verifier or self.guest.harness).post(self.path, self.body)

    def open(self, answer: Answer, guest: Guest | None = None, **changes: Any) -> bytes:
        """What the TPM and the process that asked make of an answer."""
        reply = msgspec.structs.replace(decode(answer.content, ReleaseReply), **changes)
        half = (guest or self.guest).tpm.activate(reply.credential_blob, reply.encrypted_secret)
        return bytes(opened(self.asking, self.over, reply, half))


async def question(guest: Guest, name: str = NAME, **changes: Any) -> Question:
    """Over a challenge of now."""
    challenge = await guest.challenge()
    asking = begin(name)
    over = asking.over(unb64(challenge["nonce"]))
    body = {
        "evidence": guest.evidence(challenge, over=over, **changes),
        "reply_key": b64(asking.reply_key),
    }
    return Question(guest, asking, over, body)


async def ask(guest: Guest, name: str = NAME, **changes: Any) -> Answer:
    return await (await question(guest, name, **changes)).send()


async def unsealed(guest: Guest, name: str = NAME) -> bytes:
    """The secret; the verifier has to give it."""
    asked = await question(guest, name)
    answer = await asked.send()
    assert answer.status == 200, answer.content
    return asked.open(answer)


async def audit(verifier: Harness, name: str = NAME) -> list[dict[str, Any]]:
    """What the audit log says of a secret, oldest first."""
    entries = (await verifier.get(f"/v1/audit?subject={name}", Scope.AUDITOR)).json["entries"]
    return list(reversed(entries))
