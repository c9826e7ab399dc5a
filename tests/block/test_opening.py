"""Names, formats and URLs; what is refused, and how that is said."""

import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.block import servers
from tests.block.conftest import Tool
from workbench.block import helper
from workbench.block.nbd import uri
from workbench.block.opening import open_image
from workbench.block.qcow2.create import create
from workbench.block.qcow2.image import Qcow2Image
from workbench.block.urls import without_qemu_prefix
from workbench.errors import FormatError, InputFileError, UsageError, WorkbenchError

SIZE = 1 << 20


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "a.raw"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.mark.parametrize("kind", ["vhdx", "qed", "vmdk", "vdi", "vpc"])
def test_formats_of_others(kind: str, raw: Path, qemu_img: Tool) -> None:
    path = raw.with_suffix("." + kind)
    model = bytearray(raw.read_bytes())
    force = ["-o", "force_size=on"] if kind == "vpc" else []
    qemu_img("convert", "-O", kind, *force, raw, path)
    with open_image(path, read_only=False) as image:
        assert image.format == kind
        assert image.read(0, SIZE) == model
        image.write(5120, b"x" * 1024)
        image.write_zeroes(65536, 131072)
        image.flush()
    model[5120:6144] = b"x" * 1024
    model[65536:196608] = bytes(131072)
    raw.write_bytes(model)
    qemu_img("compare", "-f", kind, "-F", "raw", path, raw)
    with open_image(path) as image, pytest.raises(InputFileError, match="for reading only"):
        image.write(0, bytes(512))


def test_a_vmdk_in_parts(tmp_path: Path, qemu_img: Tool) -> None:
    path = tmp_path / "a.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, SIZE)
    with open_image(path, read_only=False) as image:
        image.write(0, b"x" * 512)
    path.write_text(path.read_text().replace("a-flat.vmdk", "/etc/passwd"))
    with pytest.raises(InputFileError, match="have to lie beside it, not at '/etc/passwd'"):
        open_image(path)


def test_qemu_nbd_will_do(raw: Path, qemu_img: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    path, which = raw.with_suffix(".vdi"), shutil.which
    qemu_img("convert", "-O", "vdi", raw, path)
    hidden = ("qemu-storage-daemon",)
    monkeypatch.setattr(helper.shutil, "which", lambda n: None if n in hidden else which(n))
    with open_image(path, read_only=False) as image:
        assert image.read(0, SIZE) == raw.read_bytes()
        image.write(0, b"x" * 512)
    with open_image(path) as image:
        assert image.read(0, 512) == b"x" * 512


@pytest.mark.parametrize("kind", ["qcow2", "qed", "vmdk"])
def test_backing_files_only_when_allowed(kind: str, tmp_path: Path, qemu_img: Tool) -> None:
    base, path = tmp_path / "base", tmp_path / "top"
    qemu_img("create", "-q", "-f", kind, base, SIZE)
    qemu_img("create", "-q", "-f", kind, "-b", "base", "-F", kind, path)
    with pytest.raises(InputFileError, match=r"needs .*backing file.* only when allowed"):
        open_image(path)
    with open_image(path, allow_backing=True) as image:
        assert image.read(0, 512) == bytes(512)


def test_backing_files_that_never_end(tmp_path: Path) -> None:
    create(tmp_path / "a", SIZE, backing_file="b", backing_format="qcow2")
    create(tmp_path / "b", SIZE, backing_file="a", backing_format="qcow2")
    with pytest.raises(FormatError, match="expected a chain of backing files that ends"):
        open_image(tmp_path / "a", allow_backing=True)


def test_one_writer(tmp_path: Path, qemu_img: Tool) -> None:
    path = tmp_path / "a"
    create(path, SIZE)
    with open_image(path, read_only=False):
        for read_only in (False, True):
            with pytest.raises(InputFileError, match="is in use by another program"):
                open_image(path, read_only=read_only)
        with pytest.raises(AssertionError, match="lock"):
            qemu_img("check", path)
    with open_image(path), open_image(path):
        with pytest.raises(InputFileError, match="is in use"):
            open_image(path, read_only=False)
        qemu_img("check", path)


def test_internal_snapshots(tmp_path: Path, qemu_img: Tool) -> None:
    path = tmp_path / "a"
    create(path, SIZE)
    qemu_img("snapshot", "-c", "first", path)
    qemu_img("snapshot", "-c", "second", path)
    with open_image(path) as image:
        shown = image.info()["snapshots"]
    assert isinstance(shown, list)
    assert [s["name"] for s in shown] == ["first", "second"]


def test_qemus_names_of_nbd_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_qemu_prefix("nbd:h:7") == "nbd://h:7/"
    assert without_qemu_prefix("nbd:h:7:exportname=a b") == "nbd://h:7/a%20b"
    found = without_qemu_prefix("nbd:unix:/x&y:exportname=e")
    assert uri.parse(found).socket == "/x&y"
    assert uri.parse(found).export == "e"
    Path("nbd:h:7").write_bytes(bytes(512))
    assert without_qemu_prefix("nbd:h:7") == "nbd:h:7"  # a file that there is


# -- refused


def patched(path: Path, offset: int, data: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(data)] = data
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (4, b"\0\0\0\4", "expected version 2 or 3 of qcow2, not 4"),
        (20, b"\0\0\0\x1f", r"expected clusters of 2\^9 to 2\^21 bytes, not 2\^31"),
        (24, b"\xff" * 8, "expected a disk of at most"),
        (32, b"\0\0\0\2", "encrypted qcow2 images are not supported"),
        (36, b"\xff" * 4, "expected 1 to 4194304 L1 entries"),
        (40, b"\0" * 7 + b"\1", "expected the L1 table at a cluster"),
        (56, b"\xff" * 4, "expected a refcount table of at most 8 MiB"),
        (60, b"\xff" * 4, "expected at most 65536 snapshots"),
        (72, b"\0" * 7 + b"\x04", "not supported: external data file"),
        (72, b"\0" * 7 + b"\x10", "not supported: extended L2 entries"),
        (72, b"\x80" + b"\0" * 7, "not supported: bit 63"),
        (96, b"\0\0\0\7", "expected a refcount order of 0 to 6, not 7"),
    ],
)
def test_headers_that_are_refused(offset: int, value: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    create(path, SIZE)
    patched(path, offset, value)
    with pytest.raises(FormatError, match=message):
        open_image(path)


def test_a_corrupt_image_can_be_read_only(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create(path, SIZE)
    patched(path, 72, b"\0" * 7 + b"\2")
    with open_image(path) as image:
        assert image.info()["corrupt"]
        assert image.read(0, 512) == bytes(512)
    with pytest.raises(InputFileError, match="is marked as corrupt"):
        open_image(path, read_only=False)


def test_corruption_is_marked(tmp_path: Path, qemu_img: Tool) -> None:
    path = tmp_path / "a"
    create(path, SIZE)
    with open_image(path, read_only=False) as image:
        image.write(0, b"x" * 512)
    l1 = struct.unpack_from(">Q", path.read_bytes(), 40)[0]
    l2 = struct.unpack_from(">Q", path.read_bytes(), l1)[0] & (1 << 63) - 1
    patched(path, l2, (1 << 63 | l1).to_bytes(8, "big"))  # the disk's first cluster is the L1 table
    with open_image(path, read_only=False) as image:
        with pytest.raises(FormatError, match="expected data in a cluster, not metadata"):
            image.write(0, b"x" * 512)
        with pytest.raises(InputFileError, match="is corrupt and cannot be written"):
            image.write(0, b"x" * 512)
    assert '"corrupt": true' in qemu_img("info", "--output=json", path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sheepdog:vm", "QEMU dropped the sheepdog driver in version 6.0"),
        ("sheepdog+tcp://host/vm", "QEMU dropped the sheepdog driver in version 6.0"),
        ("rbd://pool/x", "expected a known kind of URL"),
        ("json:{}", "not a json: description"),
        ("iscsi://h/target", "expected iscsi://host:port/target/lun"),
        ("ssh://me:secret@h/x", "a password in a ssh URL is not supported"),
        ("gluster://h/volume", "expected gluster://host:port/volume/path"),
    ],
)
def test_urls_that_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_image(spec)


def test_a_guest_cannot_make_a_raw_image_another(raw: Path) -> None:
    with open_image(raw, read_only=False) as image:
        image.write(0, b"MZ" + bytes(2000))
        image.write(4, b"anything")
        with pytest.raises(InputFileError, match="the start of another image format"):
            image.write(0, b"QFI\xfb" + bytes(508))
        with pytest.raises(InputFileError, match="the start of another image format"):
            image.write(0x40, b"\x7f\x10\xda\xbe")
    with open_image(raw, read_only=False, format_name="raw") as image:
        image.write(0, b"QFI\xfb" + bytes(508))


def test_files_that_are_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "expected a file"), (tmp_path / "no", "no such file")):
        with pytest.raises(InputFileError, match=message):
            open_image(path)
    luks = tmp_path / "luks"
    luks.write_bytes(b"LUKS\xba\xbe" + bytes(4096))
    with pytest.raises(InputFileError, match="luks images are not supported"):
        open_image(luks)


def test_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.vhdx"
    path.write_bytes(b"vhdxfile" + bytes(65536))
    monkeypatch.setattr(helper.shutil, "which", lambda name: None)
    with pytest.raises(InputFileError, match="needs qemu-storage-daemon, which is not installed"):
        open_image(path)


@pytest.mark.parametrize("start", [b"vhdxfile", b"QED\0", b"KDMV", b"conectix"])
def test_a_damaged_image_of_others(start: bytes, tmp_path: Path, qemu_img: Tool) -> None:
    path = tmp_path / "a"
    path.write_bytes(start + random.Random(2).randbytes(4096))
    with pytest.raises(WorkbenchError) as error:
        open_image(path)
    assert "\n" not in str(error.value)


# -- URLs


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server of `tmp_path`."""
    with servers.web_of(tmp_path) as url:
        yield url


def test_http(web: str, raw: Path, qemu_img: Tool) -> None:
    content = raw.read_bytes()
    try:
        image = open_image(f"{web}/a.raw")
    except InputFileError as error:
        if "qemu-block-extra" in str(error):
            pytest.skip(str(error))
        raise
    with image:
        assert image.read(4096, 70000) == content[4096:74096]
    qemu_img("convert", "-O", "qcow2", raw, raw.with_suffix(".qcow2"))
    with open_image(f"{web}/a.qcow2") as image:
        assert image.format == "qcow2"
        assert image.read(0, SIZE) == content
    create(raw.with_name("top"), SIZE, backing_file="/etc/passwd", backing_format="raw")
    with pytest.raises(InputFileError, match="which an image of a URL cannot have"):
        open_image(f"{web}/top")


def test_no_helper_looks_for_files_that_a_web_server_names(
    web: str, raw: Path, qemu_img: Tool
) -> None:
    """A server can give another image to whoever asks next: one that names files of the host."""
    for kind, option in (("qcow2", []), ("qcow2", ["-c"]), ("vmdk", [])):
        qemu_img("convert", *option, "-O", kind, raw, raw.with_suffix("." + kind))
    try:
        image = open_image(f"{web}/a.qcow2")
    except InputFileError as error:
        if "qemu-block-extra" in str(error):
            pytest.skip(str(error))
        raise
    with image:
        assert isinstance(image, Qcow2Image)
        assert image.read(0, SIZE) == raw.read_bytes()
        with pytest.raises(InputFileError, match="for reading only"):
            image.write(0, bytes(512))
    with pytest.raises(InputFileError, match="download it first"):
        open_image(f"{web}/a.vmdk")
