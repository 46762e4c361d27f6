"""`[oidc]`: what is read, what is refused with its name, and that the examples of the page are what it reads."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from verifier.ports import Scope
from verifier.settings import SettingsError, load_settings
from verifier.settings_oidc import role_scopes

GOOD = {
    "OIDC_ISSUER": "https://sso.example/realms/ops",
    "OIDC_CLIENT_ID": "attest",
    "OIDC_ROLES": "ops=operator, ops=auditor, CN=viewers=dashboard",
}


def load(**changes):
    values = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return load_settings(None, {f"VTPM_ATTEST_VERIFIER_{name}": value for name, value in values.items()})


def test_roles_may_have_several_scopes_and_equals_signs():
    assert role_scopes(load().oidc.roles) == {
        "ops": {Scope.OPERATOR, Scope.AUDITOR},
        "CN=viewers": {Scope.DASHBOARD},
    }


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"OIDC_ISSUER": "http://sso.example"}, "oidc.issuer"),
        ({"OIDC_ISSUER": "https://sso.example/?a=b"}, "oidc.issuer"),
        ({"OIDC_ISSUER": "https://me:x@sso.example"}, "oidc.issuer"),
        ({"OIDC_ISSUER": None}, "oidc.issuer is not set"),
        ({"OIDC_CLIENT_ID": None}, "oidc.client_id"),
        ({"OIDC_ROLES": None}, "oidc.roles"),
        ({"OIDC_ROLES": "ops"}, "oidc.roles: 'ops'"),
        ({"OIDC_ROLES": "=operator"}, "oidc.roles: '=operator'"),
        ({"OIDC_ROLES": "ops=join"}, "oidc.roles: 'ops=join'"),
        ({"OIDC_ROLES": "ops=relying-party"}, "oidc.roles: 'ops=relying-party'"),
        ({"OIDC_SCOPES": "profile"}, "oidc.scopes"),
    ],
    ids=str,
)
def test_what_could_not_work_stops_the_service_and_is_named(changes, named):
    with pytest.raises(SettingsError, match=re.escape(named)):
        load(**changes)


def test_the_examples_of_the_page_are_read(tmp_path):
    page = (ROOT / "docs" / "settings.md").read_text()
    examples = [block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[oidc]" in block]
    assert len(examples) == 2
    for example in examples:
        (tmp_path / "verifier.toml").write_text(example)
        assert load_settings(tmp_path / "verifier.toml", {}).oidc.roles
