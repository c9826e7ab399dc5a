"""What SeaBIOS says on our board and on QEMU's, with the same disk and CD: the same lines."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.firmware.test_bios import Ear
from workbench.block.opening import open_image
from workbench.cli.roms import SEABIOS_FILES
from workbench.core.config import DriveConfig, FirmwareConfig, MachineConfig
from workbench.core.machine import Machine
from workbench.trace.guest import Guest, build_machine

pytestmark = [pytest.mark.qemu]
END = "No bootable device."
# Where tables lie, how long they are and what QEMU adds of its own: an option ROM for KVM's APIC,
# a reservation of HyperTransport's below 1 TiB, and a hint about the geometry of small disks.
DIFFERS = re.compile(
    r"Copying |table\(|ACPI: parse|Relocating|Space available|Returned |e820 map|  \d: |drive 0x"
    r"|.*kvmvapic|Running option rom|Found \d+ cpu"
)


def essence(log: str) -> Counter[str]:
    lines = (line for line in log.splitlines() if line and not DIFFERS.match(line))
    # Names of the drives, and the version of ATAPI, are each board's own.
    lines = (re.sub(r"(ata\d-\d): .*?(ATA-\d|ATAPI)(-\d)?", r"\1: \2", line) for line in lines)
    return Counter(line for line in lines if not line.startswith(END[:10]))


def on_qemu(folder: Path, disk: Path, cd: Path, bios: str) -> str:
    log = folder / "qemu.log"
    process = subprocess.Popen(
        ["qemu-system-x86_64", "-M", "pc,graphics=off", "-m", "64", "-nodefaults", "-display",
         "none", "-serial", "null", "-chardev", f"file,id=d,path={log}", "-device",
         "isa-debugcon,iobase=0x402,chardev=d", "-bios", bios, "-snapshot", "-drive",
         f"file={disk},if=ide,index=0,format=raw", "-drive",
         f"file={cd},if=ide,index=1,media=cdrom,format=raw"]
    )  # fmt: skip
    try:
        for _ in range(300):
            text = log.read_text("latin1") if log.exists() else ""
            if END in text or process.poll() is not None:
                return text
            time.sleep(0.1)
        return text
    finally:
        process.kill()
        process.wait()


def on_ours(disk: Path, cd: Path, bios: str) -> str:
    images = {
        f"drive{n}": open_image(str(path), format_name="raw") for n, path in enumerate((disk, cd))
    }
    drives = tuple(
        DriveConfig(f"drive{n}", kind, images[f"drive{n}"].size_bytes, read_only=kind == "cdrom")
        for n, kind in enumerate(("ide", "cdrom"))
    )
    config = MachineConfig(ram_bytes=64 << 20, firmware=FirmwareConfig(), drives=drives)
    guest = Guest.from_files(None, None, "", {"bios": bios})
    machine = partial(build_machine, images=images)(config.to_json(), guest)
    assert isinstance(machine, Machine)
    ear = Ear()
    machine.observers.append(ear)
    while END.encode() not in ear.text.get("bios", b""):
        assert machine.run(machine.clock.icount + 10_000).kind == "icount"
    for image in images.values():
        image.close()
    return ear.text["bios"].decode("latin1")


def test_the_same_messages_in_post_and_boot(tmp_path: Path) -> None:
    bios = next((path for path in SEABIOS_FILES if Path(path).exists()), "")
    if not bios or shutil.which("qemu-system-x86_64") is None:
        pytest.skip("SeaBIOS or QEMU is not installed")
    disk, cd = tmp_path / "disk.img", tmp_path / "cd.iso"
    disk.write_bytes(bytes(8 << 20))
    cd.write_bytes(bytes(1 << 20))
    theirs = essence(on_qemu(tmp_path, disk, cd, bios))
    ours = essence(on_ours(disk, cd, bios))
    assert sum(theirs.values()) > 30
    assert ours == theirs
