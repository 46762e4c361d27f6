"""A certificate is replaced under a listener that stays open, by real connections over TLS 1.2 and 1.3."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.client_certificates import ClientCa
from verifier.errors import VerifierFault
from verifier.keys.tls import ClientAnchors, TlsFiles, own_tls
from verifier.keys.tls_live import LiveTls

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture
def files(tmp_path):
    return own_tls(tmp_path / "first", ["localhost"], datetime.now(UTC))


@pytest.fixture
def other(tmp_path):
    return own_tls(tmp_path / "second", ["localhost"], datetime.now(UTC))


def put(source: TlsFiles, target: TlsFiles) -> None:
    """As whoever renews a certificate does: each file is replaced whole."""
    for here, there in ((source.certificate, target.certificate), (source.key, target.key)):
        shutil.copy(here, there.with_name("new"))
        there.with_name("new").replace(there)


def fingerprint(files: TlsFiles) -> str:
    return hashlib.sha256(
        ssl.PEM_cert_to_DER_cert(
            files.certificate.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----"
        )
    ).hexdigest()


@asynccontextmanager
async def listening(live: LiveTls):
    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=live.context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def connect(port, version=ssl.TLSVersion.TLSv1_3, name="localhost", certificate=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)


async def said(reader, writer):
    writer.write(b"hello\n")
    return await asyncio.wait_for(reader.readline(), 10)


async def shown(port, version=ssl.TLSVersion.TLSv1_3, name="localhost"):
    reader, writer = await connect(port, version, name)
    assert await said(reader, writer) == b"hello\n"
    found = hashlib.sha256(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)).hexdigest()
    writer.close()
    return found


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("name", ["localhost", ""], ids=["named", "nameless"])
async def test_new_connections_get_the_new_certificate_and_open_ones_go_on(files, other, version, name):
    live, first = LiveTls(files, None), fingerprint(files)
    async with listening(live) as port:
        assert await shown(port, version, name) == first
        stays = await connect(port, version)
        assert live.refresh(files) is False
        put(other, files)
        assert await shown(port, version, name) == first, "nobody has looked yet"
        assert live.refresh(files) is True
        assert await shown(port, version, name) == fingerprint(other) != first
        assert await said(*stays) == b"hello\n"
        stays[1].close()


async def test_a_certificate_with_another_kind_of_key_leaves_none_of_the_old_kind(files):
    live = LiveTls(files, None)
    key = rsa.generate_private_key(65537, 2048)
    old = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    built = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.subject)
        .public_key(key.public_key())
    )
    made = (
        built.serial_number(1)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .sign(key, SHA256())
    )
    async with listening(live) as port:
        files.certificate.write_bytes(made.public_bytes(Encoding.PEM))
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        assert live.refresh(files)
        for version in VERSIONS:
            assert await shown(port, version) == fingerprint(files), (
                "also to clients that like the old kind better"
            )


@pytest.mark.parametrize("broken", ["half", "other key", "gone", "no PEM", "empty"])
async def test_what_cannot_be_used_is_named_and_the_old_certificate_served_until_it_can(files, other, broken):
    live, first = LiveTls(files, None), fingerprint(files)
    whole = files.certificate.read_bytes(), files.key.read_bytes()
    match broken:
        case "half":
            files.certificate.write_bytes(other.certificate.read_bytes()[:300])
        case "other key":
            files.certificate.write_bytes(other.certificate.read_bytes())
        case "gone":
            files.key.unlink()
        case "no PEM":
            files.key.write_bytes(b"\x30\x00")
        case "empty":
            files.certificate.write_bytes(b"")
    async with listening(live) as port:
        for _ in range(2):
            with pytest.raises(VerifierFault, match=r"server\.(pem|key)"):
                live.refresh(files)
            for version in VERSIONS:
                assert await shown(port, version) == first
        files.certificate.write_bytes(whole[0])
        files.key.write_bytes(whole[1])
        assert live.refresh(files)
        put(other, files)
        assert live.refresh(files)
        assert await shown(port) == fingerprint(other)


async def test_whose_client_certificates_count_changes_with_the_files_as_well(files, tmp_path):
    old, new = ClientCa(tmp_path / "old"), ClientCa(tmp_path / "new")
    anchors = tmp_path / "clients.pem"
    anchors.write_bytes(old.path.read_bytes())
    live = LiveTls(files, ClientAnchors(anchors, None))
    theirs, ours = old.issue("a", "spiffe://a"), new.issue("b", "spiffe://b")

    async def lets_in(port, certificate):
        try:
            return await said(*await connect(port, certificate=certificate)) == b"hello\n"
        except (ssl.SSLError, ConnectionError):
            return False

    async with listening(live) as port:
        assert [await lets_in(port, one) for one in (theirs, ours, None)] == [True, False, True]
        anchors.write_bytes(new.path.read_bytes())
        assert live.refresh(files)
        assert [await lets_in(port, one) for one in (theirs, ours, None)] == [False, True, True]
