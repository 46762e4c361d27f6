"""What `attestctl` says where TLS or the token is wrong: against a real server with real certificates."""

from __future__ import annotations

import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from verifier.cli.output import exit_code
from verifier.cli.remote import Remote, RemoteError

DAY = timedelta(days=1)
NOW = datetime.now(UTC)
PROBLEM = b'{"code": "unauthenticated", "detail": "no such token", "remedy": "for programs", "status": 401}'


def certificate(subject, issuer, issuer_key, key, begin, end, *extensions):
    name = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name[0])
        .issuer_name(name[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(issuer_key, SHA256())


class Refusing(BaseHTTPRequestHandler):
    """A verifier that knows no token."""

    def do_GET(self):
        self.send_response(401)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(PROBLEM)))
        self.end_headers()
        self.wfile.write(PROBLEM)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(tmp_path):
    """Start a server; give its validity and name, and the CA's validity. Gives its port and the CA's file."""
    servers = []

    def start(begin=NOW - DAY, end=NOW + DAY, name="localhost", ca_end=NOW + DAY):
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca = certificate(
            "CA", "CA", ca_key, ca_key, NOW - 9 * DAY, ca_end, x509.BasicConstraints(ca=True, path_length=0)
        )
        leaf = certificate(
            "leaf", "CA", ca_key, key, begin, end, x509.SubjectAlternativeName([x509.DNSName(name)])
        )
        (tmp_path / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
        pem = leaf.public_bytes(Encoding.PEM)
        pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "server.pem").write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_address[1], tmp_path / "ca.pem"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refusal(port, ca, token="vta1.AAAA"):
    with pytest.raises(RemoteError) as caught:
        Remote(f"https://localhost:{port}", token, ca).get("/v1/status")
    return caught.value


@pytest.mark.parametrize(
    ("options", "says", "next_step"),
    [
        ({"begin": NOW - 8 * DAY, "end": NOW - DAY}, "expired", "restart the verifier"),
        ({"ca_end": NOW - DAY}, "expired", "restart the verifier"),
        ({"begin": NOW + DAY, "end": NOW + 2 * DAY}, "not yet valid", "clocks of both machines"),
        ({"name": "elsewhere.example"}, "Hostname mismatch", "tls.hostnames"),
    ],
    ids=["certificate", "ca", "not-yet", "name"],
)
def test_a_certificate_that_does_not_hold_is_explained(serve, options, says, next_step):
    error = refusal(*serve(**options))
    assert says in str(error)
    assert next_step in str(error)
    assert exit_code(error) == 69


def test_a_ca_nobody_was_told_of(serve):
    port, _ = serve()
    assert "pass --ca with the verifier's CA" in str(refusal(port, None))


def test_a_token_that_is_refused_names_the_command_that_makes_one(serve):
    error = refusal(*serve())
    assert str(error).startswith("401 unauthenticated: no such token")
    assert "attest-verifier tokens create --scope operator" in str(error)
    assert exit_code(error) == 77


@pytest.mark.parametrize(
    ("server", "ca"),
    [(None, None), ("http://127.0.0.1:8443", None), ("https://127.0.0.1:8443", Path("no-such-file"))],
    ids=["nobody", "no-https", "no-ca"],
)
def test_who_is_not_told_whom_to_ask_was_called_wrongly(monkeypatch, server, ca):
    monkeypatch.delenv("ATTESTCTL_SERVER", raising=False)
    with pytest.raises(RemoteError) as raised:
        Remote.from_options(server, None, ca).get("/v1/status")
    assert exit_code(raised.value) == 64
