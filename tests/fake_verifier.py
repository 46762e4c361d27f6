"""A verifier small enough to misbehave on purpose: the agent's side of `/v1` over real TLS, in a thread.

It really makes credentials and really checks activation proofs and quotes' nonces; it judges nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import os
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.wire.codec import JSON, decode, encode
from agent.wire.messages import (
    ActivationReply,
    ActivationRequest,
    AttestationReply,
    AttestationRequest,
    Challenge,
    ChallengeRequest,
    EnrollmentReply,
    EnrollmentRequest,
    PcrSelection,
    Problem,
    Verdict,
)
from verifier.crypto.credential import make_credential
from verifier.tcg.public import parse_public

ATTESTER = "attester-1"
EXPIRES = "2030-01-01T00:00:00Z"


@dataclass(frozen=True)
class Ca:
    """A CA and one server certificate under it."""

    ca_pem: str
    server_pem: bytes

    @property
    def fingerprint(self) -> bytes:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.ca_pem)).digest()


def make_ca(*, host: str = "127.0.0.1") -> Ca:
    now = datetime.now(UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        fresh = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("agent test CA"))
        fresh = fresh.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return fresh.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = builder("agent test CA", ca_key).add_extension(x509.BasicConstraints(True, None), critical=True)
    try:
        names: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        names = x509.DNSName(host)
    server = builder(host, key).add_extension(x509.SubjectAlternativeName([names]), critical=False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Ca(
        ca.sign(ca_key, hashes.SHA256()).public_bytes(pem).decode(),
        server.sign(ca_key, hashes.SHA256()).public_bytes(pem) + private,
    )


@dataclass
class Refusal:
    """An answer other than the ordinary one."""

    status: int
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/problem+json"
    close: bool = False
    """Close the connection without answering at all."""

    def content(self) -> bytes:
        if self.body is not None:
            return self.body
        problem = Problem(
            type="about:blank",
            title=self.code.replace("-", " "),
            status=self.status,
            code=self.code,
            detail="because the test says so",
            remedy="ask the test",
        )
        return encode(problem)


@dataclass
class Enrollment:
    secret: bytes
    ak_name: bytes


class FakeVerifier:
    """Start it in a `with` block; read `seen` afterwards; queue `refusals` by path."""

    def __init__(self, folder: Path, ca: Ca | None = None, *, selection: tuple[int, ...] = (0, 4, 7)) -> None:
        self.ca = ca or make_ca()
        self.selection = selection
        self.enrollments: dict[str, Enrollment] = {}
        self.nonces: set[bytes] = set()
        self.boot_log_sha256: bytes | None = None
        self.userspace_log_sha256: bytes | None = None
        self.wants_userspace_log = True
        self.wants_ima_log = False
        self.ima_known: tuple[int, str | None] = (0, None)
        self.pending = False
        self.next_in = 300.0
        self.status = "affirming"
        self.refusals: dict[str, deque[Refusal]] = {}
        self.seen: list[tuple[str, object]] = []
        self.connections = 0
        self.attested = threading.Event()
        self._pem = folder / "fake-verifier.pem"
        self._pem.write_bytes(self.ca.server_pem)
        self._server: ThreadingHTTPServer | None = None
        self.sequence = 0
        self.port = 0

    # --- life

    def __enter__(self) -> FakeVerifier:  # noqa: PYI034
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pem)
        server = _Server(("127.0.0.1", self.port), _Handler)
        server.context, server.verifier = context, self
        self.port = server.server_address[1]
        self._server = server
        threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True).start()

    def stop(self) -> None:
        """Stop listening and drop every connection, as a restart does."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.drop()
            server.server_close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return ".".join(["vtj1", _b64(b"s" * 32), _b64(self.ca.fingerprint)])

    def refuse(self, path: str, *refusals: Refusal) -> None:
        """Answer the next requests to `path` (with ids as `*`) so."""
        self.refusals.setdefault(path, deque()).extend(refusals)

    def sent(self, kind: type) -> list:
        return [message for _, message in self.seen if isinstance(message, kind)]

    # --- the protocol

    def answer(self, path: str, body: bytes, media_type: str) -> object | Refusal:
        pattern = "/".join("*" if part in self.enrollments else part for part in path.split("/"))
        request = self._parse(pattern, body, media_type)
        self.seen.append((pattern, request))
        if self.refusals.get(pattern):
            return self.refusals[pattern].popleft()
        handlers: dict[type, Callable[..., object]] = {
            EnrollmentRequest: self._enroll,
            ActivationRequest: lambda message: self._activate(path.split("/")[3], message),
            ChallengeRequest: lambda _: self.challenge(),
            AttestationRequest: self._attest,
        }
        return handlers[type(request)](request)

    def _parse(self, pattern: str, body: bytes, media_type: str) -> object:
        kinds = {
            "/v1/enrollments": EnrollmentRequest,
            "/v1/enrollments/*/activation": ActivationRequest,
            "/v1/challenges": ChallengeRequest,
            "/v1/attestations": AttestationRequest,
        }
        return decode(body, kinds[pattern], media_type)

    def _enroll(self, request: EnrollmentRequest) -> EnrollmentReply:
        name, secret = parse_public(request.ak_public).name, os.urandom(32)
        made = make_credential(parse_public(request.ek_public), name, secret, os.urandom)
        enrollment_id = f"e{len(self.enrollments)}"
        self.enrollments[enrollment_id] = Enrollment(secret, name)
        return EnrollmentReply(
            enrollment_id=enrollment_id,
            credential_blob=made.credential_blob,
            encrypted_secret=made.encrypted_secret,
            expires_at=EXPIRES,
        )

    def _activate(self, enrollment_id: str, request: ActivationRequest) -> object | Refusal:
        enrollment = self.enrollments[enrollment_id]
        message = b"vtpm-attest activation v1" + enrollment_id.encode() + enrollment.ak_name
        if request.proof != hmac.digest(enrollment.secret, message, "sha256"):
            return Refusal(403, "activation-failed")
        if self.pending:
            code = "enrollment-pending"
            return ActivationReply(status="pending", enrollment_id=enrollment_id, code=code, retry_after=5.0)
        return ActivationReply(status="enrolled", attester_id=ATTESTER)

    def challenge(self) -> Challenge:
        nonce = os.urandom(32)
        self.nonces.add(nonce)
        selection = [PcrSelection(bank="sha256", pcrs=list(self.selection))]
        return Challenge(
            nonce=nonce,
            expires_at=EXPIRES,
            selection=selection,
            boot_log_sha256=self.boot_log_sha256,
            want_userspace_log=self.wants_userspace_log,
            userspace_log_sha256=self.userspace_log_sha256,
            want_ima_log=self.wants_ima_log,
            ima_offset=self.ima_known[0],
            ima_boot=self.ima_known[1],
        )

    def _attest(self, request: AttestationRequest) -> object | Refusal:
        if request.nonce not in self.nonces:
            return Refusal(400, "nonce-unknown")
        self.nonces.remove(request.nonce)
        if request.nonce not in request.attest:
            return Refusal(400, "quote-nonce")
        if request.boot_log is not None and request.boot_log.content is not None:
            self.boot_log_sha256 = hashlib.sha256(request.boot_log.content).digest()
        if request.userspace_log is not None and request.userspace_log.content is not None:
            self.userspace_log_sha256 = hashlib.sha256(request.userspace_log.content).digest()
        self.sequence += 1
        self.attested.set()
        verdict = Verdict(
            attester_id=ATTESTER,
            sequence=self.sequence,
            status=self.status,  # type: ignore[arg-type]
            vector={},
            findings=[],
            judged_at=EXPIRES,
            valid_until=EXPIRES,
        )
        ear = f"ear.{self.sequence}.x" if request.want_ear else None
        return AttestationReply(verdict=verdict, challenge=self.challenge(), next_in=self.next_in, ear=ear)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    context: ssl.SSLContext
    verifier: FakeVerifier

    def __init__(self, *arguments) -> None:
        self._open: list = []
        super().__init__(*arguments)

    def finish_request(self, request, client_address) -> None:
        try:
            wrapped = self.context.wrap_socket(request, server_side=True)
        except (ssl.SSLError, OSError):
            return  # the agent did not trust us
        self._open.append(wrapped)
        self.verifier.connections += 1
        try:
            super().finish_request(wrapped, client_address)
        except OSError:
            pass
        finally:
            wrapped.close()

    def drop(self) -> None:
        for connection in self._open:
            try:
                connection.shutdown(2)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        pem = self.server.verifier.ca.ca_pem.encode()
        known = self.path == "/v1/ca"
        self._reply(200 if known else 404, "application/x-pem-file", pem if known else b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        media_type = self.headers["Content-Type"]
        answer = self.server.verifier.answer(self.path, body, media_type)
        if not isinstance(answer, Refusal):
            self._reply(200, media_type, encode(answer, media_type))
        elif answer.close:
            self.close_connection = True
        else:
            self._reply(answer.status, answer.content_type, answer.content(), answer.headers)

    def _reply(self, status, content_type, body, headers=None):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


__all__ = ["ATTESTER", "JSON", "Ca", "FakeVerifier", "Refusal", "make_ca"]
