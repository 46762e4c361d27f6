"""Runtime sets of Debian and RPM packages."""

from __future__ import annotations

import hashlib

import pytest

from tests import archives
from tests.conftest import ROOT
from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.runtime_set import Head, assemble
from verifier.runtime_sets.deb import DebOptions, deb_entries
from verifier.runtime_sets.deb_index import installed, packages_below, packages_of_index
from verifier.runtime_sets.errors import ArchiveError, MakingError
from verifier.runtime_sets.making import Layout, Limits, Making
from verifier.runtime_sets.rpm import RpmOptions, rpm_entries
from verifier.tcg.algorithms import HashAlg

FILES = {
    "/bin/tiny": b"program",
    "/usr/share/tiny/My File": b"data",
    "/etc/tiny.conf": b"conf",
    "/usr/lib/empty": b"",
}
SCRIPTS = {"postinst": b"#!/bin/sh\ntrue\n", "conffiles": b"/etc/tiny.conf\n"}


def listed(entries) -> dict[str, str]:
    return {entry.path.decode(): entry.digest.hex() for entry in assemble(Head(name="x"), entries)}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def debs(*paths, making=None, **options):
    return listed(deb_entries(paths, making or Making(), DebOptions(**options)))


@pytest.mark.parametrize("compression", ["gzip", "none", "xz", "zstd"])
def test_every_file_of_a_debian_package_is_hashed(tmp_path, compression):
    package = archives.deb(tmp_path, FILES, compression=compression, scripts=SCRIPTS)
    assert debs(package) == {
        "/bin/tiny": digest(b"program"),
        "/usr/bin/tiny": digest(b"program"),
        "/usr/share/tiny/My_File": digest(b"data"),
        "/etc/tiny.conf": digest(b"conf"),
        "/usr/lib/empty": digest(b""),
        "/var/lib/dpkg/info/tiny.postinst": digest(SCRIPTS["postinst"]),
        "/var/lib/dpkg/tmp.ci/postinst": digest(SCRIPTS["postinst"]),
    }
    (source,) = assemble(Head(name="x"), deb_entries([package], Making(), DebOptions())).sources
    assert source.text == "tiny 1:2.0-3 amd64 (deb)"


def test_what_is_listed_of_a_debian_package_can_be_chosen(tmp_path):
    package = archives.deb(tmp_path, FILES, scripts=SCRIPTS)
    few = debs(package, making=Making(layout=Layout.MERGED), conffiles=False, scripts=False)
    assert sorted(few) == ["/usr/bin/tiny", "/usr/lib/empty", "/usr/share/tiny/My_File"]
    assert "/bin/tiny" in debs(package, making=Making(layout=Layout.PACKED))
    excluded = Making(exclude=Patterns(["/usr/share/**", "/etc/*"]))
    assert not {"/etc/tiny.conf", "/usr/share/tiny/My_File"} & set(debs(package, making=excluded))
    assert "/sysroot/usr/bin/tiny" in debs(package, making=Making(prefix=b"/sysroot"))


def test_all_hashes_that_are_asked_for(tmp_path):
    package = archives.deb(tmp_path, {"/opt/x": b"x"})
    making = Making(algorithms=(HashAlg.SHA1, HashAlg.SHA512))
    found = assemble(Head(name="x"), deb_entries([package], making, DebOptions()))
    assert [(each.kind.text, each.digest) for each in found] == [
        ("sha1:", hashlib.sha1(b"x").digest()),
        ("sha512:", hashlib.sha512(b"x").digest()),
    ]


def test_hard_links_have_the_content_of_what_they_link_to(tmp_path):
    package = archives.deb(tmp_path, {"/opt/a": b"same"}, links=[("/opt/a", "/opt/b")])
    assert debs(package) == {"/opt/a": digest(b"same"), "/opt/b": digest(b"same")}


def test_scripts_of_packages_for_several_architectures_have_those_in_their_names(tmp_path):
    package = archives.deb(
        tmp_path, {"/opt/a": b"a"}, scripts=SCRIPTS | {"conffiles": b""}, **{"Multi-Arch": "same"}
    )
    assert "/var/lib/dpkg/info/tiny:amd64.postinst" in debs(package)


def test_diversions_are_noted(tmp_path):
    script = b"#!/bin/sh\ndpkg-divert --add --rename --package tiny /bin/other\n"
    making = Making()
    debs(archives.deb(tmp_path, {"/opt/a": b"a"}, scripts={"preinst": script}), making=making)
    assert "tiny 1:2.0-3 amd64 (deb) may divert" in making.notes[0]


def test_only_what_is_installed(tmp_path):
    one = archives.deb(tmp_path / "1", {"/opt/one": b"1"}, Package="one")
    two = archives.deb(tmp_path / "2", {"/opt/two": b"2"}, Package="two")
    status = tmp_path / "status"
    ok = "Status: install ok installed\nArchitecture: amd64\n"
    status.write_text(
        f"Package: one\n{ok}Version: 1:2.0-3\nDescription: x\n more\n\nPackage: gone\nStatus: deinstall ok"
        f" config-files\nArchitecture: amd64\nVersion: 1\n\nPackage: absent\n{ok}Version: 7\n"
    )
    making = Making()
    assert list(debs(one, two, making=making, only=installed(status))) == ["/opt/one"]
    assert making.notes == ["1 wanted packages are not among the files: absent 7 amd64"]


def test_a_mirror_is_held_against_its_index(tmp_path):
    mirror = tmp_path / "mirror"
    package = archives.deb(mirror, {"/opt/one": b"1"})
    archives.deb(mirror / "other", {"/opt/two": b"2"})
    stanza = f"Package: tiny\nFilename: ./{package.name}\nSHA256: {digest(package.read_bytes())}\n"
    index = tmp_path / "Packages.xz"
    index.write_bytes(archives.COMPRESSED["xz"](stanza.encode()))
    assert packages_of_index(index, mirror) == [mirror / package.name]
    assert len(packages_below([mirror], ".deb")) == 2
    package.write_bytes(package.read_bytes() + b" ")
    with pytest.raises(MakingError, match="the index says"):
        packages_of_index(index, mirror)
    index.write_text(stanza.replace("./", "../"))
    with pytest.raises(MakingError, match="leads out of the mirror"):
        packages_of_index(index, mirror)


HOSTILE_DEBS = {
    "no archive": (lambda deb: b"MZ" + deb, "byte 0.*no Debian package"),
    "cut in a header": (lambda deb: deb[:90], "cut off"),
    "cut in the data": (lambda deb: deb[:-40], "cut off|damaged"),
    "no data": (lambda deb: deb[: deb.index(b"data.tar")], "no control.tar and data.tar"),
    "size that is none": (lambda deb: deb.replace(b"4         `\n", b"-4        `\n", 1), "no ar header"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE_DEBS))
def test_damaged_packages_are_named_with_an_offset(tmp_path, name):
    damage, said = HOSTILE_DEBS[name]
    package = archives.deb(tmp_path, FILES)
    package.write_bytes(damage(package.read_bytes()))
    with pytest.raises(ArchiveError, match=said) as caught:
        debs(package)
    assert str(package) in caught.value.structure


def test_a_bomb_ends_at_the_limit(tmp_path):
    package = archives.deb(tmp_path, {"/opt/zeroes": bytes(3_000_000)})
    assert package.stat().st_size < 10_000
    with pytest.raises(ArchiveError, match="more than 1000000 bytes"):
        debs(package, making=Making(limits=Limits(size=1_000_000)))
    with pytest.raises(ArchiveError, match="more than 2 members"):
        debs(package, making=Making(limits=Limits(files=2)))


@pytest.mark.parametrize("compression", sorted(archives.COMPRESSED))
@pytest.mark.parametrize("stripped", [False, True])
def test_every_file_of_an_rpm_is_hashed(tmp_path, compression, stripped):
    files = [(path, content, 0) for path, content in sorted(FILES.items())]
    package = tmp_path / "tiny.rpm"
    package.write_bytes(archives.rpm(files, compress=archives.COMPRESSED[compression], stripped=stripped))
    assert listed(rpm_entries([package], Making(), RpmOptions())) == {
        "/bin/tiny": digest(b"program"),
        "/usr/bin/tiny": digest(b"program"),
        "/usr/share/tiny/My_File": digest(b"data"),
        "/etc/tiny.conf": digest(b"conf"),
        "/usr/lib/empty": digest(b""),
    }


def test_an_rpm_that_rpmbuild_made():
    """tests/vectors/rpm/tiny.spec: a blank in a name, links, a configuration file, a ghost; payload in zstd."""
    package = ROOT / "tests/vectors/rpm/tiny-1.2-3.noarch.rpm"
    run = b"".join(b"%d\n" % number for number in range(1, 4001))
    expected = {
        "/bin/tiny": digest(b"hello\n"),
        "/usr/bin/tiny": digest(b"hello\n"),
        "/etc/tiny.conf": digest(b"conf\n"),
        "/opt/My_App/run_me": digest(run),
        "/usr/share/tiny/a": digest(b"linked\n"),
        "/usr/share/tiny/b": digest(b"linked\n"),
        "/usr/share/tiny/empty": digest(b""),
    }
    assert listed(rpm_entries([package], Making(), RpmOptions())) == expected
    assert listed(rpm_entries([package], Making(), RpmOptions(header_digests=True))) == expected
    found = assemble(Head(name="x"), rpm_entries([package], Making(), RpmOptions(config=False)))
    assert b"/etc/tiny.conf" not in {entry.path for entry in found}
    assert found.sources[0].text == "tiny 2:1.2-3 noarch (rpm)"


def test_content_is_hashed_unless_the_header_is_asked(tmp_path):
    package = tmp_path / "x.rpm"
    package.write_bytes(archives.rpm([("/opt/x", b"x", 0)], digests=["aa" * 32]))
    assert listed(rpm_entries([package], Making(), RpmOptions())) == {"/opt/x": digest(b"x")}
    header = RpmOptions(header_digests=True)
    assert listed(rpm_entries([package], Making(), header)) == {"/opt/x": "aa" * 32}
    sha1 = Making(algorithms=(HashAlg.SHA1,))
    assert listed(rpm_entries([package], sha1, header)) == {"/opt/x": hashlib.sha1(b"x").hexdigest()}


HOSTILE_RPMS = {
    "no package": (b"MZ" + bytes(200), "cut off|does not begin"),
    "cut": (archives.rpm([("/opt/x", b"x", 0)])[:150], "cut off"),
    "payload cut": (archives.rpm([("/opt/x", b"x" * 100, 0)])[:-30], "cut off|damaged"),
    "traversal": (archives.rpm([("/opt/../../x", b"x", 0)]), "leads out"),
    "lists apart": (archives.rpm([("/opt/x", b"x", 0)], digests=["aa", "bb"]), "do not fit together"),
    "digest of no kind": (archives.rpm([("/opt/x", b"x", 0)], digests=["zz"]), "no sha256 digest"),
    "another payload": (
        archives.rpm([("/opt/x", b"x", 0)], compress=lambda _: archives.cpio(("./evil", b"", archives.FILE))),
        "not in the package's header",
    ),
    "lz4": (archives.rpm([("/opt/x", b"x", 0)], compress=lambda _: b"\x04\x22\x4d\x18"), "lz4"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE_RPMS))
def test_hostile_rpms_are_named_with_an_offset(tmp_path, name):
    data, said = HOSTILE_RPMS[name]
    package = tmp_path / "x.rpm"
    package.write_bytes(data)
    options = RpmOptions(header_digests=name == "digest of no kind")
    with pytest.raises(ArchiveError, match=said):
        listed(rpm_entries([package], Making(), options))
