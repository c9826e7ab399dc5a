"""Which ROMs a recording has: those that were named, and iPXE for what a BIOS boots from."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from workbench.cli import boot, roms, specs
from workbench.core.config import NicConfig
from workbench.errors import InputFileError

MAC = "52:54:00:12:34:56"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all ROMs in the place of the distribution's."""
    for name in ("seabios", "ovmf", "linuxboot", "e1000", "virtio-net"):
        (tmp_path / name).write_bytes(b"\x55\xaa")
    monkeypatch.setattr(roms, "SEABIOS_FILES", (str(tmp_path / "seabios"),))
    monkeypatch.setattr(roms, "OVMF_FILES", (str(tmp_path / "ovmf"),))
    monkeypatch.setattr(roms, "LINUXBOOT_FILES", (str(tmp_path / "linuxboot"),))
    for model in list(roms.IPXE_FILES):
        monkeypatch.setitem(
            roms.IPXE_FILES, model, (str(tmp_path / "missing"), str(tmp_path / model))
        )
    return tmp_path


def chosen(options: str, nics: list[NicConfig], named: dict[str, str] | None = None) -> set[str]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel")
    boot.add_boot(parser)
    args = parser.parse_args(options.split())
    return {f"{role}={Path(path).name}" for role, path in
            boot.guest_roms(args, named or {}, nics).items()}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "named", "index", "expected"),
    [
        ("--kernel k", {}, 0, set()),
        ("--bios seabios", {}, -1, {"bios=seabios"}),
        ("--bios ovmf", {}, -1, {"bios=ovmf"}),
        ("--bios seabios", {}, 1, {"bios=seabios", "romfile:net0=e1000"}),
        ("--bios seabios --boot n", {}, -1, {"bios=seabios", "romfile:net0=e1000"}),
        ("--bios seabios --boot n", {"net0": ""}, -1, {"bios=seabios"}),
        ("--bios seabios --boot n", {"net0": "mine"}, -1, {"bios=seabios", "romfile:net0=mine"}),
        ("--bios b --kernel k", {}, -1, {"bios=b", "option-rom-kernel=linuxboot"}),
    ],
)
def test_roms(
    installed: Path, options: str, named: dict[str, str], index: int, expected: set[str]
) -> None:
    nic = NicConfig("net0", "e1000", MAC, boot_index=index)
    assert chosen(options, [nic], named) == expected


def test_a_nic_over_mmio_has_no_rom(installed: Path) -> None:
    nic = NicConfig("net0", "virtio-net", MAC, transport="mmio")
    assert chosen("--bios seabios --boot n", [nic]) == {"bios=seabios"}


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roms.IPXE_FILES, "e1000", ("/no/such/file",))
    with pytest.raises(InputFileError, match=r"iPXE for e1000 is not installed .*ipxe-qemu"):
        specs.nic("e1000,romfile=ipxe")
    monkeypatch.setattr(roms, "OVMF_FILES", ("/no/such/file",))
    with pytest.raises(InputFileError, match=r"OVMF is not installed \(Debian's package ovmf\)"):
        chosen("--bios ovmf", [])
    monkeypatch.setattr(roms, "LINUXBOOT_FILES", ("/no/such/file",))
    with pytest.raises(
        InputFileError, match=r"linuxboot_dma.bin is not installed .*qemu-system-da"
    ):
        chosen("--bios b --kernel k", [])


def test_romfile_may_be_a_file_or_nothing() -> None:
    assert specs.nic("e1000").rom is None
    assert specs.nic("e1000,romfile=").rom == ""
    assert specs.nic("virtio-net,romfile=my.rom,none").rom == "my.rom"
