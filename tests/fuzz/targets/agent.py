"""What the agent reads: join tokens, its own files, systemd's log, its command line's texts, and what a verifier answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.bundle import parse_nonce, parse_pcrs
from agent.errors import AgentError
from agent.join_token import JoinToken
from agent.standing import StandingFiles
from agent.state import StateFile
from agent.transport import Server, certificates_of
from agent.userspace import named_indices
from agent.wire import codec, messages, secrets
from tests.fuzz.corpora import as_file, choices
from tests.fuzz.targets import Bound
from tests.fuzz.targets.userspace_log import seeds as logs

RAISES = (AgentError, codec.WireError)
RUNS = 1500
MEMORY = Bound(100, 1 << 20)
REPLIES = (
    messages.EnrollmentReply,
    messages.ActivationReply,
    messages.Challenge,
    secrets.ReleaseReply,
    messages.Problem,
)


def as_text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "surrogateescape"))


def replies(data: bytes) -> None:
    codec.decode(
        data[1:],
        REPLIES[data[0] % len(REPLIES) if data else 0],
        codec.JSON if data[:1] < b"\x80" else codec.MSGPACK,
    )


READERS: tuple[Callable[[bytes], object], ...] = (
    as_text(JoinToken.parse),
    as_text(parse_pcrs),
    as_text(parse_nonce),
    as_text(Server.parse),
    as_text(certificates_of),
    named_indices,
    lambda data: StateFile(as_file(data, "agent.json").parent).load(),
    lambda data: StandingFiles(as_file(data, "verdict.json").parent, "verdict").read(),
    replies,
)


def seeds() -> Iterator[bytes]:
    yield from choices(
        {
            0: [b"vtj1." + b"A" * 43 + b"." + b"B" * 43],
            1: [b"0-9,14"],
            2: [b"hex:00112233445566778899", b"base64:AAAAAAAAAAAA"],
            3: [b"https://verifier.example:8443/prefix", b"https://[::1]:99999", b"https://a:x"],
            4: [b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
            5: list(logs())[:3],
            6: [b'{"server":"https://v","attester_id":"att-1"}', b'{"pending":' + b"[" * 3000],
            7: [b'{"status":"affirming","attester_id":"a","sequence":1,"judged_at":"x","valid_until":"y"}'],
            8: [
                b"\2" + b'{"nonce":"' + b"A" * 43 + b'=","expires_at":"x","selection":[]}',
                b'\4{"type":"t","title":"t","status":1,"code":"c"}',
            ],
        }
    )


def target(data: bytes) -> None:
    READERS[data[0] % len(READERS) if data else 0](data[1:])
