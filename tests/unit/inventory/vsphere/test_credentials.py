"""A password goes to the vCenter it is for, over TLS, and nowhere else: not to logs, errors, reprs or statuses."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.eventually import eventually
from tests.unit.inventory.vsphere.conftest import status_of, whole
from tests.vsphere_endpoint import make_tls
from verifier.inventory.errors import InventorySettingError, VcenterError, VcenterLoginError
from verifier.inventory.settings import Credentials, Login, SecretFile, SecretVariable
from verifier.inventory.vsphere.session import VcenterSession

SECRET = "pass & <word> \u00fc'\"%s{}"
PIECES = (SECRET, "<word>", "&lt;word&gt;", "pass & ")


@pytest.fixture
def secretive(vcenter):
    """The same vCenter with a password that is easy to find wherever it is written, escaped or not."""
    vcenter.password.write_text(SECRET)
    vcenter.service.login = ("reader@vsphere.local", SECRET)
    return vcenter


def leaks(*texts: object) -> list[str]:
    return [piece for text in texts for piece in PIECES if piece in str(text)]


async def test_it_arrives_as_it_was_written(secretive):
    async with secretive.synced():
        assert secretive.service.attempts == [SECRET]


def _refuse(vcenter) -> None:
    vcenter.service.login = ("reader@vsphere.local", "another")


def _stop(vcenter) -> None:
    vcenter.endpoint.stop()


def _garble(vcenter) -> None:
    vcenter.endpoint.raw = b"<nonsense/>"


def _break(vcenter) -> None:
    def fault(_call) -> None:
        raise RuntimeError("of the server")

    vcenter.service.before["Login"] = fault


@pytest.mark.parametrize("harm", [_refuse, _stop, _garble, _break])
async def test_no_failure_writes_it_anywhere(secretive, log, harm):
    harm(secretive)
    async with secretive.followed(timeout=timedelta(seconds=2)) as inventory:
        status = await eventually(lambda: _failed(inventory))
        assert leaks(status, repr(inventory), vars(inventory)) == []
    assert "inventory.failed" in log.getvalue()
    assert leaks(log.getvalue()) == []


async def _failed(inventory):
    status = await status_of(inventory)
    return status if status.problem not in {None, "not read yet"} else None


async def test_an_untrusted_vcenter_is_not_given_it(secretive, log, tmp_path):
    other = make_tls(tmp_path / "other")
    async with secretive.followed(ca_file=other.ca) as inventory:
        await eventually(lambda: _failed(inventory))
    assert secretive.service.attempts == []
    assert leaks(log.getvalue()) == []


async def test_neither_a_whole_life_nor_any_repr_writes_it(secretive, log):
    secretive.estate.add("web")
    async with secretive.synced() as inventory:
        secretive.service.expire_sessions()
        secretive.estate.add("database")
        await eventually(lambda: _two(inventory))
        assert leaks(repr(await inventory.status()), repr(await inventory.machines())) == []
    assert leaks(log.getvalue()) == []


async def _two(inventory) -> bool:
    return len(await inventory.machines()) == 2


def test_settings_and_logins_show_where_it_is_and_not_what(secretive):
    credentials = secretive.settings.credentials
    login = credentials.read({})
    assert login.password == SECRET
    shown = (repr(secretive.settings), repr(credentials), str(credentials.password), repr(login), str(login))
    assert leaks(*shown) == []
    assert str(secretive.password) in shown[0]


def test_a_failed_login_does_not_carry_it_even_with_the_locals_of_every_frame(secretive):
    """As error reporters print them."""
    secretive.service.login = ("reader@vsphere.local", "another")
    session = VcenterSession(secretive.settings, secretive.settings.credentials.read({}))
    with pytest.raises(VcenterLoginError) as caught:
        session.open(None)
    session.close()
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert leaks("".join(told.format()), repr(caught.value), vars(session)) == []
    assert leaks(pickle.dumps(str(caught.value))) == []


def test_a_session_forgets_it_when_it_has_logged_in(secretive):
    session = VcenterSession(secretive.settings, secretive.settings.credentials.read({}))
    session.open(None)
    assert session._login is None
    session.close()
    with pytest.raises(VcenterError):
        session.open(None)


def test_from_the_environment(secretive):
    source = Credentials(user=SecretVariable("VC_USER"), password=SecretVariable("VC_PASSWORD"))
    environ = {"VC_USER": "reader", "VC_PASSWORD": SECRET}
    assert source.read(environ) == Login("reader", SECRET)
    with pytest.raises(InventorySettingError, match="environment variable VC_PASSWORD is empty or not set"):
        source.read({"VC_USER": "reader"})


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"word\n", "word"), (b"word\r\n", "word"), (b" word ", " word "), (b"word\n\n", "word\n")],
)
def test_one_line_break_at_the_end_of_a_file_is_the_editors(tmp_path, content, password):
    path = tmp_path / "password"
    path.write_bytes(content)
    assert SecretFile(path).read({}) == password


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "not UTF-8"), (b"x" * 5000, "more than 4096")],
)
def test_a_file_that_cannot_be_a_password_is_refused_by_its_name(tmp_path, content, says):
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(InventorySettingError, match=says) as caught:
        SecretFile(path).read({})
    assert str(path) in str(caught.value)


async def test_a_second_vcenter_has_credentials_of_its_own(secretive, tmp_path, tls):
    from tests.vsphere_endpoint import Endpoint

    other = tmp_path / "other-password"
    other.write_text("battery staple")
    with Endpoint(tls, login=("south", "battery staple")) as south:
        second = replace(
            secretive.settings,
            name="dc2",
            port=south.port,
            credentials=Credentials(user="south", password=SecretFile(other)),
        )
        async with secretive.followed(second) as inventory:
            await eventually(lambda: whole(inventory))
        assert south.service.attempts == ["battery staple"]
        assert secretive.service.attempts == [SECRET]
