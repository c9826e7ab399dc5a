"""SeaBIOS on the board: what it is told, and that it comes as far as booting."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from workbench import firmware
from workbench.cli.roms import SEABIOS_FILES
from workbench.core.config import (
    RESTART,
    DriveConfig,
    FirmwareConfig,
    FlashConfig,
    MachineConfig,
    NicConfig,
)
from workbench.core.machine import Machine, Observer
from workbench.errors import GuestError
from workbench.firmware import LoaderError, bootorder, loader_script, smbios
from workbench.hw.acpi import build_relocatable
from workbench.hw.board import boot_bytes, build_pc
from workbench.trace.guest import Guest, Rom, build_machine
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay
from workbench.trace.session import Limits, Recording

CONFIG = MachineConfig(
    ram_bytes=64 << 20, seed=1, firmware=FirmwareConfig(reboot_timeout_ms=1000), rtc_epoch_s=10**9
)


class Ear(Observer):
    def __init__(self) -> None:
        self.text: dict[str, bytearray] = {}

    def on_console(self, device: str, data: bytes, icount: int) -> None:
        self.text.setdefault(device, bytearray()).extend(data)


@pytest.fixture(scope="session")
def seabios() -> bytes:
    for path in map(Path, SEABIOS_FILES):
        if path.exists():
            return path.read_bytes()
    pytest.skip("SeaBIOS is not installed")


def pc(seabios: bytes, config: MachineConfig = CONFIG) -> tuple[Machine, Ear]:
    machine, ear = build_pc(config), Ear()
    firmware.load_bios(machine, seabios)
    machine.observers.append(ear)
    return machine, ear


def post(machine: Machine, ear: Ear) -> None:
    """Run until there is nothing to boot from."""
    while b"No bootable device" not in ear.text.get("com1", b""):
        assert machine.run(machine.clock.icount + 2_000).kind == "icount"


def test_seabios_finds_everything_and_nothing_to_boot(seabios: bytes) -> None:
    machine, ear = pc(seabios)
    post(machine, ear)
    assert machine.memory.read(0xF_0000, 0x1_0000) != seabios[-0x1_0000:]  # it is shadowed
    log = ear.text["bios"].decode("latin1")
    for line in (
        "Running on QEMU (i440fx)",
        "QEMU fw_cfg DMA interface supported",
        "qemu/e820: addr 0x0000000000000000 len 0x0000000004000000 [RAM]",
        "PIIX3/PIIX4 init: elcr=00 0c",
        "Using pmtimer, ioport 0x608",
        "Found 1 cpu(s) max supported 1 cpu(s)",
        "Copying SMBIOS",
        "sercon: using ioport 0x3f8",
        "PS2 keyboard initialized",
        "No bootable device.",
    ):
        assert line in log, log
    assert "No bootable device" in ear.text["com1"].decode("latin1")
    assert machine.run(2 * 10**9).kind == "reset"
    assert not machine.undefined


def test_acpi_tables_are_placed_and_sum_to_zero(seabios: bytes) -> None:
    machine, ear = pc(seabios)
    post(machine, ear)
    area = machine.memory.read(0xF_0000, 0x1_0000)
    rsdp = 0xF_0000 + area.index(b"RSD PTR ")
    pointer = machine.memory.read(rsdp, 36)
    assert sum(pointer) & 0xFF == sum(pointer[:20]) & 0xFF == 0
    xsdt = struct.unpack_from("<Q", pointer, 24)[0]
    found = {}
    for gpa in _entries(machine, xsdt, 8):
        table = _table(machine, gpa)
        found[table[:4]] = table
    assert set(found) == {b"FACP", b"APIC", b"HPET"}
    dsdt = _table(machine, struct.unpack_from("<Q", found[b"FACP"], 140)[0])
    assert dsdt[:4] == b"DSDT"
    assert b"QEMU0002" in dsdt
    facs = struct.unpack_from("<I", found[b"FACP"], 36)[0]
    assert machine.memory.read(facs, 4) == b"FACS"
    assert facs % 64 == 0


def _table(machine: Machine, gpa: int) -> bytes:
    size = struct.unpack("<I", machine.memory.read(gpa + 4, 4))[0]
    table = machine.memory.read(gpa, size)
    assert sum(table) & 0xFF == 0, table[:4]
    return table


def _entries(machine: Machine, gpa: int, size: int) -> list[int]:
    table = _table(machine, gpa)
    return [int.from_bytes(table[n : n + size], "little") for n in range(36, len(table), size)]


def test_a_snapshot_in_the_middle_of_post_goes_on_the_same(seabios: bytes) -> None:
    """Before, during and after shadowing: all come to the same digest."""
    machine, _ = pc(seabios)
    snapshots = []
    for icount in (10, 3_000, 50_000, 1_000_000, 3_000_000):
        machine.run(icount)
        snapshots.append(machine.save())
    machine.run(4_000_000)
    wanted = machine.digest()
    for snapshot in reversed(snapshots):
        machine.restore(snapshot)
        machine.run(4_000_000)
        assert machine.digest() == wanted, snapshot.icount
    other, _ = pc(seabios)
    other.run(4_000_000)
    assert other.digest() == wanted


def test_a_recording_holds_the_bios_and_replays(seabios: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bios.wbt"
    guest = Guest(roms={"bios": Rom("bios.bin", seabios)})
    recording = Recording(str(path), CONFIG.to_json(), guest, limits=Limits(icount=10**9))
    outcome = recording.run()
    assert outcome.stop == "reset", outcome
    with open_trace(path) as trace:
        assert [i.role for i in trace.header.images] == ["bios"]
        result = Replay(trace).run()
    assert result.identical
    assert result.verified


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "64 KiB to 16 MiB"),
        (bytes(100_000), "64 KiB to 16 MiB"),
        (bytes(1 << 17), "a jump 16 bytes before its end, not 00 00 00 00 00"),
    ],
)
def test_what_is_no_bios_is_refused(image: bytes, message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        firmware.load_bios(build_pc(CONFIG), image)


def test_a_bios_needs_memory_and_a_board_for_it(seabios: bytes) -> None:
    small = MachineConfig(ram_bytes=8 << 20, firmware=FirmwareConfig())
    with pytest.raises(LoaderError, match="needs 16 MiB of memory, not 8 MiB"):
        firmware.load_bios(build_pc(small), seabios)
    with pytest.raises(LoaderError, match="not configured for a BIOS"):
        firmware.load_bios(build_pc(MachineConfig()), seabios)


def test_the_boot_order_goes_into_cmos_and_indices_into_a_file() -> None:
    config = MachineConfig(
        firmware=FirmwareConfig("dnc", strict=True),
        drives=(
            DriveConfig("drive0", "ide", 1 << 30, boot_index=3),
            DriveConfig("drive1", "virtio", 1 << 20, boot_index=1),
            DriveConfig("drive2", "cdrom", 0, boot_index=0),
        ),
        nics=(NicConfig("net0", "e1000", "52:54:00:12:34:56", boot_index=2),),
    )
    assert boot_bytes(config) == {0x38: 0x21, 0x39: 0x01, 0x3D: 0x43}
    machine = build_pc(config)
    image = bytes(0xFFF0) + b"\xea" + bytes(15)
    firmware.load_bios(machine, image)
    fw_cfg = machine.devices["fw_cfg"]
    assert fw_cfg.file("bootorder").decode() == (  # type: ignore[attr-defined]
        "/pci@i0cf8/ide@1,1/drive@0/disk@1\n/pci@i0cf8/scsi@3/disk@0,0\n"
        "/pci@i0cf8/ethernet@4/ethernet-phy@0\n/pci@i0cf8/ide@1,1/drive@0/disk@0\nHALT\0"
    )


def test_what_is_booted_once_is_over_after_a_reset() -> None:
    config = MachineConfig(firmware=FirmwareConfig("ca", once="d"), at_reset=RESTART)
    machine = build_pc(config)
    rtc = machine.devices["rtc"]
    assert boot_bytes(config)[0x3D] == rtc.state.cmos[0x3D] == 3  # type: ignore[attr-defined]
    rtc.state.cmos[0x50] = 7  # type: ignore[attr-defined]
    machine.request_reset()
    machine.run(0)
    assert rtc.state.cmos[0x3D] == 0x12  # type: ignore[attr-defined]
    assert rtc.state.cmos[0x50] == 7  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="expected up to three of acdn to boot from, not 'x'"):
        FirmwareConfig(once="x")


def test_drives_keep_their_places() -> None:
    """The second of two buses, or with a gap; paths and translation follow."""
    drives = (
        DriveConfig("a", "ide", 1 << 30, place=2, boot_index=1),
        DriveConfig("b", "ide", 1 << 20, boot_index=2),
        DriveConfig("c", "cdrom", 0, place=3, boot_index=3),
    )
    config = MachineConfig(drives=drives, firmware=FirmwareConfig())
    assert boot_bytes(config)[0x39] == 1 << 4
    assert bootorder.lines(config, build_pc(config).devices["pci"]).decode() == "".join(
        f"/pci@i0cf8/ide@1,1/drive@{bus}/disk@{unit}{end}"
        for bus, unit, end in ((1, 0, "\n"), (0, 0, "\n"), (1, 1, "\0"))
    )
    twice = (DriveConfig("a", "ide", 512), DriveConfig("b", "ide", 512, place=0))
    with pytest.raises(ValueError, match="not two with index 0"):
        build_pc(MachineConfig(drives=twice))


def test_smbios_has_what_is_required_of_it() -> None:
    anchor, table = smbios.build(MachineConfig(ram_bytes=1 << 30))
    assert len(anchor) == 31
    assert struct.unpack_from("<H", anchor, 22)[0] == len(table)
    kinds, at = [], 0
    while at < len(table):
        kinds.append(table[at])
        at = table.index(b"\0\0", at + table[at + 1]) + 2
    assert kinds == [1, 3, 4, 16, 17, 19, 32, 127]
    assert struct.unpack_from("<H", anchor, 28)[0] == len(kinds)


def test_the_fadt_follows_the_base_of_power_management(seabios: bytes) -> None:
    """UEFI puts it at B000h."""
    machine, _ = pc(seabios)
    fw_cfg, pm = machine.devices["fw_cfg"], machine.devices["piix4_pm"]
    key = fw_cfg.files["etc/acpi/tables"]
    for base in (0, 0xB000, 0x4000):
        pm.write(0x40, 4, base | 1)
        pm.write(0x80, 1, 1)
        fw_cfg.write(0, 2, key)
        tables = fw_cfg.read_block(1, 1, len(fw_cfg.items[key]))
        fadt = tables.index(b"FACP")
        timer = struct.unpack_from("<I", tables, fadt + 76)[0]
        assert timer == (base or 0x600) + 8


def test_the_loader_script_points_only_inside_its_files() -> None:
    tables = build_relocatable(CONFIG)
    script = loader_script.script(tables)
    assert len(script) % 128 == 0
    sizes = {b"etc/acpi/tables": len(tables.tables), b"etc/acpi/rsdp": len(tables.rsdp)}
    for at in range(0, len(script), 128):
        command = struct.unpack_from("<I", script, at)[0]
        name = script[at + 4 : at + 60].rstrip(b"\0")
        if command == 2:
            offset, size = struct.unpack_from("<IB", script, at + 116)
            assert offset + size <= sizes[name]
        elif command == 3:
            offset, start, length = struct.unpack_from("<III", script, at + 60)
            assert start <= offset < start + length <= sizes[name]
            # EDK2 computes the sum with what is there, SeaBIOS subtracts it: both want 0
            content = tables.tables if name == b"etc/acpi/tables" else tables.rsdp
            assert content[offset] == 0


@pytest.mark.parametrize(
    ("role", "message"),
    [("romfile:net9", "a device on PCI, not for 'net9'"), ("bios", "64 KiB to 16 MiB")],
)
def test_a_trace_with_wrong_roms_is_one_sentence(seabios: bytes, role: str, message: str) -> None:
    roms = {"bios": Rom("bios.bin", seabios)} | {role: Rom("x.rom", b"\x55\xaa nonsense")}
    with pytest.raises(GuestError, match=message):
        build_machine(CONFIG.to_json(), Guest(roms=roms))


def test_flash_of_other_sizes_than_the_trace_says_is_one_sentence(seabios: bytes) -> None:
    flash = (FlashConfig("pflash0", len(seabios)), FlashConfig("pflash1", 8192))
    config = replace(CONFIG, flash=flash).to_json()
    variables = Rom("v", bytes(8192))
    build_machine(config, Guest(roms={"bios": Rom("b", seabios), "pflash1": variables}))
    for roms in (
        {"bios": Rom("b", seabios)},
        {"bios": Rom("b", seabios[4096:]), "pflash1": variables},
        {"bios": Rom("b", seabios), "pflash1": Rom("v", b"")},
        {"bios": Rom("b", seabios), "pflash1": variables, "pflash2": variables},
    ):
        with pytest.raises(GuestError, match="expected flash of the sizes"):
            build_machine(config, Guest(roms=roms))
    for wrong in ({**config, "flash": 3 * config["flash"]}, {**config, "firmware": None}):
        with pytest.raises(GuestError, match="this machine cannot be built"):
            build_machine(wrong, Guest(roms={"bios": Rom("b", seabios), "pflash1": variables}))
