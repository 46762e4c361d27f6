"""`[bearer]` and `[client_certificates]`: what could not work, or would let in more than meant, is refused by name."""

from __future__ import annotations

import pytest

from verifier.ports import Scope
from verifier.settings import SettingsError, load_settings
from verifier.settings_access import certificate_grants, grants

BEARER = {"issuer": '"https://issuer.test"', "audience": '"attest"', "roles": '["a=dashboard"]'}
CERTIFICATES = {"ca": '"/ca.pem"', "roles": '["dns:a.test=dashboard"]'}


def loaded(tmp_path, section, values):
    file = tmp_path / "v.toml"
    file.write_text(f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
    return load_settings(file, {})


def test_what_is_whole_is_taken(tmp_path):
    assert loaded(tmp_path, "bearer", BEARER).bearer.audience == "attest"
    assert loaded(tmp_path, "client_certificates", CERTIFICATES).client_certificates.roles == (
        "dns:a.test=dashboard",
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"issuer": '""'}, "issuer is not set"),
        ({"issuer": '"http://issuer.test"'}, "https"),
        ({"issuer": '"https://u:p@issuer.test"'}, "https"),
        ({"audience": '""'}, "audience is not set"),
        ({"roles": "[]"}, "roles is empty"),
        ({"roles": '["a"]'}, "role=scope"),
        ({"roles": '["a=join"]'}, "role=scope"),
        ({"roles": '["a=dashboard@"]'}, "role=scope"),
        ({"roles": '["a=dashboard@no name"]'}, "role=scope"),
        ({"roles": '["a=dashboard", "a=operator@other"]'}, "two tenants"),
    ],
    ids=[
        "issuer",
        "http",
        "user",
        "audience",
        "no roles",
        "no scope",
        "join",
        "no tenant",
        "tenant",
        "tenants",
    ],
)
def test_bearer_settings_that_could_not_work(tmp_path, changes, says):
    with pytest.raises(SettingsError, match=r"bearer\.") as caught:
        loaded(tmp_path, "bearer", BEARER | changes)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ca": None}, "ca is not set"),
        ({"roles": "[]"}, "roles is empty"),
        ({"roles": '["cn:a=dashboard"]'}, "dns:NAME"),
    ],
    ids=["ca", "roles", "kind"],
)
def test_client_certificate_settings_that_could_not_work(tmp_path, changes, says):
    values = {key: value for key, value in (CERTIFICATES | changes).items() if value is not None}
    with pytest.raises(SettingsError, match=r"client_certificates\.") as caught:
        loaded(tmp_path, "client_certificates", values)
    assert says in str(caught.value)


def test_a_role_may_be_there_several_times_and_hold_equals_signs():
    found = grants(["a=b=dashboard", "a=b=operator", "c=auditor@globex"])
    assert found["a=b"].scopes == {Scope.DASHBOARD, Scope.OPERATOR}
    assert (found["a=b"].tenant, found["c"].tenant) == ("default", "globex")


def test_names_of_hosts_have_no_case_and_uris_have():
    assert set(certificate_grants(["dns:A.Test=dashboard", "uri:spiffe://E/x=dashboard"])) == {
        "dns:a.test",
        "uri:spiffe://E/x",
    }
