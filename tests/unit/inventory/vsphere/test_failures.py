"""A vCenter that is down, slow, restarted, not itself, or refuses: told with the reason, and lived with."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.eventually import eventually
from tests.unit.inventory.vsphere.conftest import PASSWORD, named, status_of, whole
from tests.vsphere_endpoint import make_tls
from verifier.appraisal.inventory import SourceStatus
from verifier.inventory.errors import InventorySettingError


async def failed(inventory) -> SourceStatus:
    return await eventually(lambda: _failed(inventory))


async def _failed(inventory) -> SourceStatus | None:
    status = await status_of(inventory)
    return status if status.problem not in {None, "not read yet"} else None


async def test_an_expired_session_is_replaced_by_a_new_one_without_a_word(vcenter, log):
    vcenter.estate.add("web")
    async with vcenter.synced() as inventory:
        vcenter.service.expire_sessions()
        vcenter.estate.add("database")
        await eventually(lambda: named(inventory, "database"))
        assert (await status_of(inventory)).problem is None
    assert len(vcenter.service.attempts) == 2
    assert '"level": "warning"' not in log.getvalue()


async def test_a_logout_is_left_behind(vcenter):
    async with vcenter.synced():
        assert len(vcenter.service.sessions) == 1
    assert vcenter.service.calls[-1] == "Logout"
    assert vcenter.service.sessions == {}


async def test_down_at_first_and_found_when_it_comes(vcenter):
    vcenter.estate.add("web")
    vcenter.endpoint.stop()
    async with vcenter.followed() as inventory:
        status = await failed(inventory)
        assert (status.synced_at, status.machines) == (None, 0)
        assert status.problem.startswith("vCenter dc1: no connection: ")
        vcenter.endpoint.start()
        await eventually(lambda: whole(inventory))
        assert (await status_of(inventory)).problem is None


async def test_what_was_read_stays_and_grows_old_while_it_is_down(vcenter):
    web = vcenter.estate.add("web")
    async with vcenter.synced() as inventory:
        synced_at = (await status_of(inventory)).synced_at
        vcenter.endpoint.stop()
        status = await failed(inventory)
        assert status.synced_at == synced_at
        assert [one.name for one in await inventory.lookup_smbios(web.config.uuid)] == ["web"]


async def test_a_wrong_password_is_not_tried_again_until_it_is_replaced(vcenter):
    vcenter.password.write_text("wrong horse")
    async with vcenter.followed(retry=timedelta(milliseconds=20)) as inventory:
        assert (await failed(inventory)).problem == "vCenter dc1: it refuses the user name or the password"
        await asyncio.sleep(0.3)  # fifteen chances to lock the account
        assert vcenter.service.attempts == ["wrong horse"]
        vcenter.password.write_text(PASSWORD)
        await eventually(lambda: whole(inventory))
    assert vcenter.service.attempts == ["wrong horse", PASSWORD]


async def test_a_password_file_that_is_not_there_is_told_by_its_name(vcenter):
    vcenter.password.unlink()
    async with vcenter.followed() as inventory:
        assert f"cannot read file {vcenter.password}: No such file" in (await failed(inventory)).problem
        vcenter.password.write_text(PASSWORD)
        await eventually(lambda: whole(inventory))


@pytest.mark.parametrize("method", ["Login", "WaitForUpdatesEx", "RetrievePropertiesEx"])
async def test_one_that_never_answers_is_given_up_on_and_the_loop_goes_on(vcenter, method):
    """The blocking call hangs in its thread; whoever else lives on the event loop does not notice."""
    vcenter.estate.add("web")
    hanging = vcenter.service.before[method] = _hang()
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    async with vcenter.followed(timeout=timedelta(seconds=1)) as inventory:
        heart = asyncio.create_task(beat())
        status = await failed(inventory)
        assert "no answer within 0:00:0" in status.problem or "did not answer in time" in status.problem
        assert beats > 20
        heart.cancel()
        del vcenter.service.before[method]
        hanging.release = True
        await eventually(lambda: whole(inventory))


class _hang:  # noqa: N801 - a verb
    def __init__(self) -> None:
        self.release = False

    def __call__(self, _call) -> None:
        until = time.monotonic() + 25
        while not self.release and time.monotonic() < until:
            time.sleep(0.05)


async def test_a_certificate_of_another_ca_is_refused_before_anything_is_said(vcenter, tmp_path):
    other = make_tls(tmp_path / "other")
    async with vcenter.followed(ca_file=other.ca) as inventory:
        assert "its certificate is not trusted" in (await failed(inventory)).problem
    assert vcenter.service.calls == []


async def test_a_certificate_for_another_host_is_refused(vcenter):
    async with vcenter.followed(host="localhost") as inventory:
        assert "its certificate is not trusted" in (await failed(inventory)).problem
    assert vcenter.service.calls == []


async def test_a_subordinate_ca_may_be_named_by_itself(vcenter, tls):
    async with vcenter.synced(ca_file=tls.ca.parent / "subordinate.pem"):
        assert len(vcenter.service.attempts) == 1


async def test_a_ca_file_that_is_not_there_is_told_by_its_name(vcenter, tmp_path):
    async with vcenter.followed(ca_file=tmp_path / "nowhere.pem") as inventory:
        problem = (await failed(inventory)).problem
    assert problem == f"vCenter dc1: CA file {tmp_path / 'nowhere.pem'}: No such file or directory"


@pytest.mark.parametrize("sha256", ["right", "colons"])
async def test_a_pinned_certificate_is_enough_whatever_its_ca_and_host(vcenter, tls, sha256):
    pin = tls.thumbprint if sha256 == "right" else tls.thumbprint.hex(":").upper()
    pin = pin if isinstance(pin, bytes) else bytes.fromhex(pin.replace(":", ""))
    async with vcenter.synced(ca_file=None, host="localhost", thumbprint=pin):
        assert len(vcenter.service.attempts) == 1


async def test_another_certificate_than_the_pinned_one_is_refused_before_anything_is_said(vcenter):
    async with vcenter.followed(ca_file=None, thumbprint=bytes(32)) as inventory:
        problem = (await failed(inventory)).problem
    assert "its certificate is another one than the pinned" in problem
    assert vcenter.service.calls == []


async def test_a_pin_and_a_ca_at_once_are_refused(vcenter, tls):
    with pytest.raises(InventorySettingError, match="either"):
        replace(vcenter.settings, thumbprint=tls.thumbprint)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"<html>Service Unavailable</html>", "its answer"),
        (b"\x00\x01", "its answer is not XML"),
        (b"", "its answer"),
    ],
)
async def test_an_answer_that_is_no_vsphere_answer_is_told_as_such(vcenter, raw, says):
    vcenter.endpoint.raw = raw
    async with vcenter.followed() as inventory:
        assert says in (await failed(inventory)).problem
        vcenter.endpoint.raw = None
        await eventually(lambda: whole(inventory))


async def test_machines_are_all_read_again_after_the_full_sync_interval(vcenter):
    """Should a signal ever be missed, that is how long its machine may be misread."""
    web = vcenter.estate.add("web")
    async with vcenter.synced(full_sync=timedelta(hours=6)) as inventory:
        web.config.hardware.device = []  # behind the property collector's back
        await asyncio.sleep(1.2)
        assert (await named(inventory, "web")).has_vtpm
        vcenter.clock.advance(hours=6)
        await eventually(lambda: _without_vtpm(inventory))
    assert vcenter.service.read == [[web.moid], [web.moid]]


async def _without_vtpm(inventory) -> bool:
    return (await named(inventory, "web")).has_vtpm is False
