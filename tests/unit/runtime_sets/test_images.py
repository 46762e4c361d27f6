"""Runtime sets of root filesystems, container images, initramfs images and IMA lists."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.archives import COMPRESSED, DEVICE, FILE, FOLDER, LINK, cpio, link, oci, tar
from tests.conftest import ROOT
from verifier.errors import EvidenceError, MalformedInputError
from verifier.policy.runtime.entry import Kind
from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.runtime_set import Head, assemble
from verifier.runtime_sets.errors import ArchiveError, MakingError
from verifier.runtime_sets.ima_list import ima_entries
from verifier.runtime_sets.image import tar_entries
from verifier.runtime_sets.initramfs import initramfs_entries
from verifier.runtime_sets.making import Limits, Making
from verifier.runtime_sets.rootfs import rootfs_entries

EVIDENCE = ROOT / "policies/evidence"


def listed(entries) -> dict[str, str]:
    return {entry.path.decode(): entry.digest.hex() for entry in assemble(Head(name="x"), entries)}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def image(tmp_path):
    def read(data: bytes, **options) -> dict[str, str]:
        path = tmp_path / "image.tar"
        path.write_bytes(data)
        making = options.pop("making", Making())
        return listed(tar_entries(path, making, **options))

    return read


ROOTFS = (
    ("./", None),
    ("./usr/bin", None),
    ("./usr/bin/sh", b"shell"),
    link("./bin", "usr/bin"),
    link("./usr/bin/dash", "./usr/bin/sh", tarfile.LNKTYPE),
    link("./usr/bin/sh-link", "sh"),
    ("./bin/ls", b"ls"),
    link("./usr/lib64", "../lib/x"),
    ("./usr/lib64/ld.so", b"loader"),
    ("./opt/My App/run", b"run"),
)
EXPECTED = {
    "/usr/bin/sh": digest(b"shell"),
    "/usr/bin/dash": digest(b"shell"),
    "/usr/bin/ls": digest(b"ls"),
    "/lib/x/ld.so": digest(b"loader"),
    "/opt/My_App/run": digest(b"run"),
}


@pytest.mark.parametrize("compression", sorted(COMPRESSED))
def test_files_of_a_root_filesystem_lie_where_links_lead_to(image, compression):
    assert image(COMPRESSED[compression](tar(*ROOTFS))) == EXPECTED


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_odd_names(image, kind):
    long = "/".join(["folder"] * 30) + "/Größe"
    if kind == tarfile.USTAR_FORMAT:
        long = "/".join(["folder"] * 12) + "/" + "n" * 90
    assert image(tar((long, b"x"), kind=kind)) == {f"/{long}": digest(b"x")}


def test_whiteouts_hide_what_lies_below_and_nothing_of_their_own_layer(image):
    first = tar(
        ("bin", None), ("bin/a", b"a1"), ("bin/b", b"b1"), ("etc/x", b"x"), ("etc/y", b"y"), link("s", "bin")
    )
    second = tar(
        ("bin/a", b"a2"), ("bin/.wh.a", b""), ("bin/.wh.b", b""), ("etc/z", b"z"), ("etc/.wh..wh..opq", b"")
    )
    third = tar(("s/c", b"c"), (".wh.nothing", b""))
    for layers in ((first, second, third), (COMPRESSED["gzip"](first), COMPRESSED["zstd"](second), third)):
        assert image(oci(*layers)) == {
            "/bin/a": digest(b"a2"),
            "/bin/c": digest(b"c"),
            "/etc/z": digest(b"z"),
        }


def test_sources_of_an_image_are_its_layers(tmp_path):
    path = tmp_path / "web.tar"
    layers = [tar(("a", b"a"), ("b", b"b")), tar(("b", b"b2"))]
    path.write_bytes(oci(*layers))
    found = assemble(Head(name="x"), tar_entries(path, Making()))
    by_path = {entry.path: entry.sources[0] for entry in found}
    assert by_path[b"/a"] == ("image", "web.tar", f"sha256:{digest(layers[0])}", "")
    assert by_path[b"/b"].version == f"sha256:{digest(layers[1])}"


def test_one_platform_is_chosen(image):
    data = oci(tar(("a", b"a")), platforms=2)
    assert image(data, platform="linux/arm64") == {"/a": digest(b"a")}
    with pytest.raises(MakingError, match="name a platform of linux/amd64, linux/arm64"):
        image(data)
    with pytest.raises(MakingError, match="0 images fit"):
        image(data, platform="linux/riscv64")


def test_archives_of_older_dockers(image):
    manifest = b'[{"Config":"c.json","RepoTags":["x:1"],"Layers":["1/layer.tar","2/layer.tar"]}]'
    layers = (("1/layer.tar", tar(("a", b"a"))), ("2/layer.tar", tar((".wh.a", b""), ("b", b"b"))))
    assert image(tar(("manifest.json", manifest), *layers)) == {"/b": digest(b"b")}


def test_a_layer_that_is_another_than_its_digest_says_is_refused(image):
    layer = tar(("a", b"good"))
    data = oci(layer)
    bad = data.replace(b"good", b"evil")
    assert bad != data
    with pytest.raises(ArchiveError, match="the layer has SHA-256"):
        image(bad)


LOOP = (link("a", "b"), link("b", "a"), ("a/x", b"x"))
HUGE = tarfile.TarInfo("huge")
HUGE.size = 1 << 40
PAX = tarfile.TarInfo("pax")
PAX.type, PAX.size = tarfile.XHDTYPE, 1 << 33

HOSTILE_TARS = {
    "traversal": (tar(("../../etc/x", b"x")), "leads out of the archive"),
    "hard link to nothing": (tar(link("a", "b", tarfile.LNKTYPE)), "which is not there"),
    "hard link out": (tar(link("a", "../b", tarfile.LNKTYPE)), "leads out of the archive"),
    "JSON that is no text": (
        oci(tar(("a", b"a"))).replace(b'"manifests"', b'"manif\xffsts"'),
        "index.json is no JSON",
    ),
    "circle": (tar(*LOOP), "lead round in a circle"),
    "no archive": (b"not an archive" * 100, "no tar archive"),
    "huge member, cut off": (HUGE.tobuf() + b"x", "huge' cannot be read"),
    "huge header": (PAX.tobuf() + bytes(2048), "no tar archive"),
    "damaged gzip": (COMPRESSED["gzip"](tar(*ROOTFS))[:-20], "cut off|damaged"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(600), "lz4, which is not read here"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE_TARS))
def test_hostile_archives_are_refused(image, name):
    data, said = HOSTILE_TARS[name]
    with pytest.raises(EvidenceError, match=said):
        image(data)


def test_links_stay_below_the_root(image):
    data = tar(link("up", "../../../../etc"), ("up/passwd", b"x"), link("abs", "/usr"), ("abs/bin/y", b"y"))
    assert image(data) == {"/etc/passwd": digest(b"x"), "/usr/bin/y": digest(b"y")}


def test_limits_of_archives(image):
    data = COMPRESSED["xz"](tar(("zeroes", bytes(2_000_000))))
    with pytest.raises(ArchiveError, match="more than 1000000 bytes"):
        image(data, making=Making(limits=Limits(size=1_000_000)))
    with pytest.raises(ArchiveError, match="more than 3 members"):
        image(tar(*ROOTFS), making=Making(limits=Limits(files=3)))


MAIN = cpio(
    ("usr/bin", b"", FOLDER),
    ("bin", b"usr/bin", LINK),
    ("init", b"init", FILE),
    ("bin/busybox", b"busybox", FILE),
    ("usr/bin/a", b"", FILE),
    ("usr/bin/b", b"linked", FILE),
    ("dev/console", b"", DEVICE),
    inodes={"usr/bin/a": 77, "usr/bin/b": 77},
)
MICROCODE = cpio(("kernel/x86/microcode/GenuineIntel.bin", b"microcode", FILE), ("init", b"old", FILE))
UNPACKED = {
    "/init": digest(b"init"),
    "/usr/bin/busybox": digest(b"busybox"),
    "/usr/bin/a": digest(b"linked"),
    "/usr/bin/b": digest(b"linked"),
    "/kernel/x86/microcode/GenuineIntel.bin": digest(b"microcode"),
}


@pytest.mark.parametrize("compression", sorted(set(COMPRESSED) - {"two-gzips", "two-zstds"}))
def test_later_archives_of_an_initramfs_replace_what_earlier_ones_put(tmp_path, compression):
    path = tmp_path / "initrd.img"
    path.write_bytes(MICROCODE + bytes(512) + COMPRESSED[compression](MAIN))
    assert listed(initramfs_entries([path], Making())) == UNPACKED
    path.write_bytes(COMPRESSED[compression](MICROCODE) + COMPRESSED[compression](MAIN) + bytes(100))
    assert listed(initramfs_entries([path], Making())) == UNPACKED


HOSTILE_CPIOS = {
    "nothing": (bytes(512), "no archive in it"),
    "something else": (MICROCODE + b"garbage", "begins neither a cpio archive nor compressed data"),
    "cut": (MAIN[:-150], "cut off"),
    "no hex": (b"070701" + b"x" * 104, "no hex number"),
    "traversal": (cpio(("../x", b"", FILE)), "leads out"),
    "a name of no length": (MAIN[:94] + b"00000000" + MAIN[102:], "a name of 0 bytes"),
    "a huge file": (MAIN[:54] + b"ffffffff" + MAIN[62:], "cut off"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE_CPIOS))
def test_hostile_initramfs_images_are_refused(tmp_path, name):
    data, said = HOSTILE_CPIOS[name]
    path = tmp_path / "initrd.img"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=said):
        listed(initramfs_entries([path], Making()))


SEEDS = [
    ("tar", tar(*ROOTFS)),
    ("tar", oci(tar(*ROOTFS))),
    ("cpio", MICROCODE + COMPRESSED["zstd"](MAIN)),
    ("cpio", COMPRESSED["xz"](MAIN)),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEEDS), st.floats(0, 1), st.binary(max_size=8), st.integers(0, 600))
def test_damage_gives_a_set_or_the_one_kind_of_error(tmp_path, seed, where, replacement, cut):
    kind, data = seed
    at = int(where * len(data))
    path = tmp_path / "damaged"
    path.write_bytes(data[:at] + replacement + data[at + cut :])
    making = Making(limits=Limits(size=10_000_000, files=1000))
    entries = tar_entries(path, making) if kind == "tar" else initramfs_entries([path], making)
    try:
        listed(entries)
    except EvidenceError as error:
        assert str(path) in str(error) or isinstance(error, MakingError)


def test_a_root_filesystem_on_disk(tmp_path):
    root = tmp_path / "root"
    for name in ("usr/bin/sh", "proc/1/x", "tmp/x", "opt/My App/run", "home/me/x"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (root / "bin").symlink_to("usr/bin")
    os.mkfifo(root / "pipe")
    making = Making(exclude=Patterns(["/home/**"]))
    assert listed(rootfs_entries(root, making, source="x")) == {
        "/usr/bin/sh": digest(b"usr/bin/sh"),
        "/opt/My_App/run": digest(b"opt/My App/run"),
    }
    assert "/proc/1/x" in listed(rootfs_entries(root, Making(), source="x", everything=True))
    with pytest.raises(MakingError, match="No such file"):
        listed(rootfs_entries(tmp_path / "nothing", Making(), source="x"))


def test_files_of_this_very_system():
    """A real folder with real links: what is listed is what sha256sum says of the files there."""
    folder = Path("/usr/lib/dpkg")
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    found = listed(rootfs_entries(folder, Making(prefix=b"/usr/lib/dpkg"), source="dpkg"))
    assert found == {str(path).replace(" ", "_"): digest(path.read_bytes()) for path in files}
    assert found


def test_a_list_of_a_real_boot():
    path = EVIDENCE / "uki-sb-on/binary_runtime_measurements"
    found = assemble(Head(name="x"), ima_entries([path], Making(), source="boot"))
    assert len(found) > 100
    assert b"boot_aggregate" not in {entry.path for entry in found}
    assert {entry.kind.kind for entry in found} == {Kind.FILE}
    assert {entry.sources[0].text for entry in found} == {"boot (ima)"}


def ascii_line(fields: str, data: bytes) -> bytes:
    return f"10 {hashlib.sha1(data).hexdigest()} {fields}\n".encode()


def ng(alg: str, value: bytes, path: bytes, *more: bytes) -> bytes:
    parts = (alg.encode() + b":\0" + value, path + b"\0", *more)
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def test_what_is_left_out_of_a_list(tmp_path):
    one, buffer = hashlib.sha256(b"1").digest(), b"root=/dev/vda"
    command_line = hashlib.sha256(buffer).digest()
    lines = [
        ascii_line(f"ima-ng sha256:{one.hex()} boot_aggregate", ng("sha256", one, b"boot_aggregate")),
        ascii_line(f"ima-ng sha256:{one.hex()} /usr/bin/one", ng("sha256", one, b"/usr/bin/one")),
        ascii_line(f"ima-ng sha256:{one.hex()} /usr/bin/edited", ng("sha256", one, b"/usr/bin/other")),
        ascii_line(f"ima-ng md5:{one[:16].hex()} /usr/bin/weak", ng("md5", one[:16], b"/usr/bin/weak")),
        f"10 {'0' * 40} ima-ng sha256:{'0' * 64} /var/log/violation\n".encode(),
        ascii_line(
            f"ima-ngv2 verity:sha256:{one.hex()} /usr/bin/tree",
            ng("verity:sha256", one, b"/usr/bin/tree"),
        ),
        ascii_line(
            f"ima-buf sha256:{command_line.hex()} kexec-cmdline {buffer.hex()}",
            ng("sha256", command_line, b"kexec-cmdline", buffer),
        ),
    ]
    path = tmp_path / "list"
    path.write_bytes(b"".join(lines))
    making = Making()
    found = {(e.kind.text, e.path, e.digest) for e in ima_entries([path], making)}
    assert found == {
        ("sha256:", b"/usr/bin/one", one),
        ("verity:sha256:", b"/usr/bin/tree", one),
        ("buffer:sha256:", b"kexec-cmdline", command_line),
    }
    assert making.notes == [
        "list: 1 digests of an unknown or broken algorithm left out",
        "list: 1 entries whose digest does not fit them left out",
        "list: 1 violations left out",
    ]
    path.write_bytes(b"10 zz ima-ng x\n")
    with pytest.raises(MalformedInputError):
        list(ima_entries([path], Making()))
