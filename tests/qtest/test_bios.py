"""What firmware finds on the board of the qtest program."""

from pathlib import Path

import pytest

from workbench.errors import WorkbenchError
from workbench.qtest.assembly import assemble
from workbench.qtest.options import parse
from workbench.qtest.testbed import Testbed

CONFADD, CONFDATA = 0xCF8, 0xCFC


def board(*options: str) -> Testbed:
    return assemble(parse(options)).testbed


def item(bed: Testbed, key: int, count: int) -> bytes:
    bed.port_write(0x510, 2, key)
    return bytes(bed.port_read(0x511, 1) for _ in range(count))


def order(bed: Testbed) -> int:
    out = 0
    for n, at in enumerate((0x38, 0x3D)):
        bed.port_write(0x70, 1, at)
        out |= bed.port_read(0x71, 1) << 8 * n
    return out


def test_fw_cfg() -> None:
    bed = board("-uuid", "4600cb32-38ec-4b2f-8acb-81c6ea54f2d8", "-m", "64", "-boot", "menu=on")
    assert item(bed, 0, 4) == b"QEMU"
    assert item(bed, 2, 16).hex() == "4600cb3238ec4b2f8acb81c6ea54f2d8"
    assert item(bed, 3, 8) == (64 << 20).to_bytes(8, "little")
    assert item(bed, 0x0E, 2) == b"\1\0"
    assert b"etc/boot-fail-wait" not in item(bed, 0x19, 4096)
    assert b"etc/boot-fail-wait" in item(board("-boot", "reboot-timeout=-1"), 0x19, 4096)


@pytest.mark.parametrize(
    ("options", "first", "after"),
    [
        ((), 0x1230, 0x1230),
        (("-no-fd-bootchk",), 0x1231, 0x1231),
        (("-boot", "nda"), 0x3410, 0x3410),
        (("-boot", "order="), 0, 0),
        (("-boot", "once=a,order=c"), 0x0100, 0x0200),
        (("-boot", "once=d", "-boot", "order=nda"), 0x0300, 0x3410),
    ],
)
def test_boot_order(options: tuple[str, ...], first: int, after: int) -> None:
    bed = board(*options)
    assert order(bed) == first
    bed.reset()
    assert order(bed) == after


def test_the_image_and_its_shadow(tmp_path: Path) -> None:
    path = tmp_path / "bios"
    image = bytes(range(256)) * 256
    path.write_bytes(image)
    bed = board("-bios", str(path))
    assert bed.read((4 << 30) - len(image) - 8, len(image) + 8) == b"\xff" * 8 + image
    assert bed.read(0xF_0000, 1 << 16) == image
    bed.port_write(CONFADD, 4, 0x8000_0058)
    bed.port_write(CONFDATA + 1, 1, 0x30)  # PAM0: RAM at 0xF0000
    assert bed.read(0xF_0000, 16) == bytes(16)
    bed.store(0xF_0000, 4, 0x12345678)
    assert bed.load(0xF_0000, 4) == 0x12345678
    bed.reset()
    assert bed.read(0xF_0000, 1 << 16) == image


@pytest.mark.parametrize(
    "options",
    [("-boot", "order=x"), ("-boot", "once=q"), ("-boot", "splash-time=x"), ("-uuid", "x"),
     ("-bios", "/nowhere"), ("-bios", "/dev/null"), ("-drive", "if=pflash,file=/nowhere")],
)  # fmt: skip
def test_what_is_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(WorkbenchError):
        board(*options)
