"""A server certificate from a CA that gives it by itself (ACME, RFC 8555), with the challenge http-01.

For a command that runs beside the service now and then: nothing of it is in the process that serves, which takes up new files by
itself. The protocol is the library `acme`, of Certbot's makers.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import josepy
import requests
from acme import challenges, client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from verifier.acme_files import CertificateFiles, dns_names
from verifier.errors import VerifierFault
from verifier.keys.files import ensure_directory, locked, write_file
from verifier.settings import Settings
from verifier.settings_acme import AcmeSettings

_PATIENCE: Final = timedelta(seconds=120)
"""For the CA to look at the challenges and to sign."""
_NETWORK: Final = 30
_STILL: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What was done.

    Attributes:
        reason: why there is a new certificate; empty: there is none.
        ends: of the certificate that stands now.
        due: when the next is fetched.
    """

    reason: str
    names: tuple[str, ...]
    ends: datetime
    due: datetime


def renew(settings: Settings, now: datetime, *, force: bool = False, agent: str = "vtpm-attest") -> Renewal:
    """Fetch a certificate if it is time, and put it where the listener reads it.

    Raises:
        VerifierFault: the settings do not say enough, the CA cannot be reached or refuses, or a file cannot be written. The files are as
            they were.
    """
    own, files = settings.acme, _files(settings)
    names = tuple(dict.fromkeys(own.names or (urlsplit(settings.base_url).hostname or "",)))
    directory = settings.state_dir / "acme"
    ensure_directory(settings.state_dir)
    with locked(directory):
        files.recover()
        reason, _ = files.due(names, now)
        if force and not reason:
            reason = "it was asked for"
        if reason:
            try:
                chain, key = _fetch(own, names, directory / "account.key", agent)
            except (errors.Error, messages.Error, josepy.errors.Error, requests.RequestException) as error:
                raise VerifierFault(f"no certificate from {own.directory}: {_said(error)}") from error
            files.put(chain, key)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    _, due = files.due(names, certificate.not_valid_before_utc)
    ends = certificate.not_valid_after_utc
    return Renewal(reason=reason, names=tuple(sorted(dns_names(certificate))), ends=ends, due=due or ends)


def _files(settings: Settings) -> CertificateFiles:
    if not settings.acme.directory:
        raise VerifierFault(
            "acme.directory is not set: name the directory of a CA, and whose terms are agreed to"
        )
    if settings.tls.certificate is None or settings.tls.key is None:
        raise VerifierFault(
            "tls.certificate and tls.key are not set: name the files that the certificate is to be written to"
        )
    return CertificateFiles(settings.tls.certificate, settings.tls.key)


def _fetch(own: AcmeSettings, names: tuple[str, ...], account_key: Path, agent: str) -> tuple[bytes, bytes]:
    """Chain and key of a certificate for these names, as PEM."""
    account = JWKEC(key=_account_key(account_key))
    # The library says bool, and hands it to Requests, which takes a file of CA certificates as well.
    verify = cast("bool", True if own.ca is None else str(own.ca))
    network = client.ClientNetwork(account, alg=ES256, verify_ssl=verify, user_agent=agent, timeout=_NETWORK)
    ca = client.ClientV2(client.ClientV2.get_directory(own.directory, network), network)
    _sign_up(ca, own, account)
    key = ec.generate_private_key(ec.SECP256R1())
    order = ca.new_order(_request(key, names))
    expected: dict[str, str] = {}
    answers = []
    for one in order.authorizations:
        if one.body.status == messages.STATUS_VALID:
            continue
        challenge = _http(one)
        response, text = challenge.response_and_validation(account)
        expected[challenge.chall.path] = text
        answers.append((challenge, response))
    with _answering(own.host, own.port, expected):
        for challenge, response in answers:
            ca.answer_challenge(challenge, response)
        # The library compares with the local time of the machine.
        done = ca.poll_and_finalize(order, datetime.now() + _PATIENCE)  # noqa: DTZ005
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return done.fullchain_pem.encode(), private


def _sign_up(ca: client.ClientV2, own: AcmeSettings, account: JWKEC) -> None:
    """Make the account, or find it by its key."""
    terms = getattr(getattr(ca.directory, "meta", None), "terms_of_service", None)
    if terms and not own.terms_agreed:
        raise VerifierFault(
            f"the CA has terms of service: read {terms}, and set acme.terms_agreed if you agree"
        )
    bound = None
    if own.eab_key_file is not None:
        bound = _bound(own.eab_kid, own.eab_key_file, ca.directory, account)
    elif ca.external_account_required():
        raise VerifierFault(
            "the CA binds accounts to those of its customers: set acme.eab_kid and acme.eab_key_file"
        )
    try:
        ca.new_account(
            messages.NewRegistration.from_data(
                email=",".join(own.contact) or None,
                terms_of_service_agreed=own.terms_agreed,
                external_account_binding=bound,
            )
        )
    except errors.ConflictError as known:
        ca.net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())


def _bound(kid: str, path: Path, directory: messages.Directory, account: JWKEC) -> dict[str, Any]:
    try:
        secret = path.read_text().strip()
        return messages.ExternalAccountBinding.from_data(account.public_key(), kid, secret, directory)
    except (OSError, ValueError) as error:
        raise VerifierFault(f"acme.eab_key_file {path} has no key in base64url: {error}") from error


def _account_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The account is this key: it is made once."""
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        write_file(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise VerifierFault(f"cannot read the account's key {path}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise VerifierFault(f"the account's key {path} is not of a P-256 curve")
    return key


def _request(key: ec.EllipticCurvePrivateKey, names: tuple[str, ...]) -> bytes:
    subject = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.add_extension(subject, critical=False).sign(key, SHA256()).public_bytes(Encoding.PEM)


def _http(authorization: messages.AuthorizationResource) -> messages.ChallengeBody:
    for one in authorization.body.challenges:
        if isinstance(one.chall, challenges.HTTP01):
            return one
    name = authorization.body.identifier.value
    raise VerifierFault(f"the CA offers no http-01 challenge for {name}")


@contextmanager
def _answering(host: str, port: int, expected: Mapping[str, str]) -> Iterator[None]:
    """Answer the CA's questions while this is open, and nobody else's."""
    if not expected:
        yield
        return
    try:
        listening = _listen(host, port)
    except OSError as error:
        raise VerifierFault(
            f"cannot listen on port {port}, where the CA asks: {error.strerror or error}; it has to be free, and open to this user"
        ) from error

    class Answer(BaseHTTPRequestHandler):
        timeout = _STILL

        def do_GET(self) -> None:
            text = expected.get(self.path)
            body = b"" if text is None else text.encode()
            self.send_response(404 if text is None else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def version_string(self) -> str:
            return "vtpm-attest"

        def log_message(self, *_: Any) -> None:  # noqa: ANN401 - as the library has it
            """Nobody wants to know."""

    server = ThreadingHTTPServer((host, port), Answer, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listen(host: str, port: int) -> socket.socket:
    if host or not socket.has_dualstack_ipv6():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)


def _said(error: Exception) -> str:
    """In one line what the CA says of it."""
    if isinstance(error, errors.TimeoutError):
        return f"it was not done within {_PATIENCE.seconds} s"
    if isinstance(error, requests.ConnectionError):
        return "it cannot be reached, or its certificate is not of a CA that is trusted (acme.ca)"
    return " ".join(str(error).split()) or type(error).__name__
