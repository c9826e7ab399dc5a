"""VMDK images that name files of the host, in all ways in which QEMU's reader takes a name."""

import struct
from pathlib import Path

import pytest

from tests.block.conftest import Tool
from workbench.block.opening import open_image
from workbench.errors import WorkbenchError

SIZE = 8 << 20
SECRET = b"SECRET--" * 128
DESCRIPTOR = """\
# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="monolithicFlat"

{part}

ddb.adapterType = "ide"
"""
HEADER = "<4sIIQQQQIQQQBBBBBH"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_bytes(SECRET)
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def embedded(part: str) -> bytes:
    """A file with a binary header and, instead of data, a descriptor."""
    head = struct.pack(
        HEADER, b"KDMV", 1, 3, 0, 128, 1, 0, 512, 0, 0, 128, 0, 10, 32, 13, 10, 0
    )  # fmt: skip
    return head.ljust(512, b"\0") + DESCRIPTOR.format(part=part).encode().ljust(1 << 16, b"\0")


@pytest.mark.parametrize(
    "part",
    [
        'RW 2 FLAT "{secret}" 0',
        ' RW 2 FLAT "{secret}" 0',
        '\tRW 2 FLAT "{secret}" 0',
        'RW\t2 FLAT "{secret}" 0',
        'RW +2 FLAT "{secret}" 0',
        'RW\n2 FLAT "{secret}" 0',
        'RW 2 FLAT "{secret}\n',
        'x=1\r\n\x0bRW 2 FLAT "{secret}" 0',
        'RW 2 FLAT "../secret/file" 0',
        'RW 2 FLAT "file:{secret}" 0',
        'RW 2 FLAT "link" 0',
    ],
)
@pytest.mark.parametrize("how", ["text", "format", "embedded", "nested"])
def test_no_part_lies_elsewhere(how: str, part: str, folder: Path) -> None:
    secret = folder.parent / "secret" / "file"
    (folder / "link").symlink_to(secret)
    text = DESCRIPTOR.format(part=part.format(secret=secret))
    path = folder / "disk.vmdk"
    match how:
        case "text":
            path.write_text(text, newline="")
        case "format":
            path.write_text(text.removeprefix("# Disk DescriptorFile\n"), newline="")
        case "embedded":
            path.write_bytes(embedded(part.format(secret=secret)))
        case _:
            (folder / "part.vmdk").write_bytes(embedded(part.format(secret=secret)))
            path.write_text(DESCRIPTOR.format(part='RW 2 SPARSE "part.vmdk"'))
    with pytest.raises(WorkbenchError):
        open_image(path, format_name="vmdk").read(0, 512)


@pytest.mark.parametrize(
    "kind",
    ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
     "streamOptimized"],
)  # fmt: skip
def test_what_qemu_makes_is_opened(kind: str, folder: Path, qemu_img: Tool) -> None:
    raw, path = folder / "raw", folder / "disk.vmdk"
    raw.write_bytes(SECRET.ljust(SIZE, b"\0"))
    qemu_img("convert", "-O", "vmdk", "-o", f"subformat={kind}", raw, path)
    with open_image(path) as image:
        assert image.size_bytes == SIZE
        assert image.read(0, 1024) == SECRET
