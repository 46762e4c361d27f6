"""What an import changes, said before and after it is done."""

from __future__ import annotations

import pytest

from tests import pki
from verifier.crypto.anchors import AnchorCollection, Rejected, TrustAnchors
from verifier.errors import RefusedError
from verifier.ports_trust import AnchorPurpose
from verifier.reasons import Reason
from verifier.service.anchor_import import ImportMode, ImportPlan, ImportRequest, TrustedSet, plan_import
from verifier.service.anchor_sets import AnchorSet

FIRST, SECOND = pki.Ca.root("First"), pki.Ca.root("Second")
OLD_LIST, NEW_LIST = pki.crl(FIRST, (1,)), pki.crl(FIRST, (1, 2))
EK, AK = AnchorPurpose.EK, AnchorPurpose.AK


def found(*authorities: pki.Ca, crls: tuple[bytes, ...] = (), **changes) -> AnchorCollection:
    anchors = TrustAnchors.from_der(one.der for one in authorities)
    return AnchorCollection(**({"anchors": anchors, "crls": crls, "rejected": (), "ignored": ()} | changes))


def existing(*authorities: pki.Ca, crls: tuple[bytes, ...] = (), purposes=frozenset({AK})) -> TrustedSet:
    content = AnchorSet(TrustAnchors.from_der(one.der for one in authorities), crls)
    return TrustedSet(
        name="lab",
        digest=content.encode()[0],
        purposes=purposes,
        content=content,
        assignment=None,
        source="old.pem",
    )


def plan(collection: AnchorCollection, before: TrustedSet | None = None, **request) -> ImportPlan:
    return plan_import(ImportRequest(**({"name": "lab", "source": "new.pem"} | request)), collection, before)


def names(certificates) -> set[str]:
    return {certificate.subject_text for certificate in certificates}


def test_a_new_set_is_for_endorsement_keys_unless_told_otherwise():
    made = plan(found(FIRST))
    assert (made.purposes, names(made.added), made.dropped, made.replaced) == (
        frozenset({EK}),
        {"CN=First"},
        (),
        None,
    )
    assert plan(found(FIRST), purposes=frozenset({AK, EK})).purposes == {AK, EK}


def test_adding_keeps_what_is_there_its_purposes_and_where_it_came_from():
    before = existing(FIRST, crls=(OLD_LIST,))
    made = plan(found(SECOND, crls=(NEW_LIST,)), before, mode=ImportMode.ADD)
    assert names(made.content.anchors) == {"CN=First", "CN=Second"}
    assert set(made.content.crls) == {OLD_LIST, NEW_LIST}
    assert (names(made.added), names(made.kept), made.dropped) == ({"CN=Second"}, {"CN=First"}, ())
    assert (made.crls_added, made.crls_dropped) == (1, 0)
    assert (made.purposes, made.replaced, made.source) == ({AK}, before.digest, "old.pem, new.pem")


def test_replacing_drops_what_is_not_in_the_new_files():
    made = plan(found(SECOND, crls=(NEW_LIST,)), existing(FIRST, crls=(OLD_LIST,)), mode=ImportMode.REPLACE)
    assert names(made.content.anchors) == {"CN=Second"}
    assert (names(made.added), names(made.dropped)) == ({"CN=Second"}, {"CN=First"})
    assert (made.crls_added, made.crls_dropped, made.source) == (1, 1, "new.pem")


def test_two_vcenters_whose_archives_have_one_name_do_not_overwrite_each_other():
    with pytest.raises(RefusedError, match="already, with 1 anchors") as caught:
        plan(found(SECOND), existing(FIRST))
    assert caught.value.reason is Reason.CONFLICT
    assert plan(found(FIRST), existing(FIRST)).added == ()  # the same again is no conflict


@pytest.mark.parametrize("name", ["", "a b", "../x", "settings:ek", "-x", "a" * 65, "0123456789abcdef" * 2])
def test_names_that_cannot_be_one(name):
    with pytest.raises(RefusedError) as caught:
        plan(found(FIRST), name=name)
    assert caught.value.reason is Reason.ANCHORS_REFUSED


def test_nothing_usable_says_what_was_wrong_with_it():
    refused = (Rejected("leaf.der", "CN=leaf", "not a CA certificate (basic constraints)"),)
    with pytest.raises(RefusedError, match=r"leaf\.der: not a CA"):
        plan(found(rejected=refused))
    with pytest.raises(RefusedError, match="neither CA certificates nor revocation lists"):
        plan(found(ignored=("README",)))


def test_revocation_lists_alone_can_be_added():
    made = plan(found(crls=(NEW_LIST,)), existing(FIRST), mode=ImportMode.ADD)
    assert (names(made.content.anchors), made.content.crls, made.added) == ({"CN=First"}, (NEW_LIST,), ())
