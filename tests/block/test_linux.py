"""Linux writes a file system through to a qcow2 image; the checks of QEMU and e2fsprogs pass."""

import shutil
import subprocess
from pathlib import Path

import pytest

from guests.build import ensure
from guests.errors import GuestError
from guests.initramfs import run_option
from tests.block.conftest import Tool
from workbench import firmware
from workbench.block.disk import Disk
from workbench.block.opening import open_image
from workbench.block.qcow2.create import create
from workbench.core.config import MachineConfig
from workbench.core.inputs import Input
from workbench.core.machine import Observer
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.board import build_board
from workbench.hw.piix_ide import PiixIde

pytestmark = [pytest.mark.slow, pytest.mark.guest]

SIZE = 64 << 20
SCRIPT = """
mke2fs -q /dev/sda && mkdir /mnt && mount -t ext4 /dev/sda /mnt
dd if=/dev/urandom of=/mnt/r bs=1M count=32 2>/dev/null
sha256sum </mnt/r >/mnt/sum; sync; rm -f /mnt/none; cp /mnt/r /tmp/r; umount /mnt
echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 /dev/sda /mnt
sha256sum </mnt/r | cmp - /mnt/sum && echo SAME; umount /mnt
"""


class Ear(Observer):
    """What the guest says, and what came in."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.inputs: list[Input] = []

    def on_console(self, device: str, data: bytes, icount: int) -> None:
        self.text += data

    def on_input(self, inp: Input) -> None:
        self.inputs.append(inp)


def boot(image: Path | None, replayed: list[Input] | None = None) -> tuple[Ear, bytes]:
    try:
        guest = ensure("generic")
    except GuestError as error:
        pytest.skip(str(error))
    board = build_board(MachineConfig(rtc_epoch_s=1_700_000_000))
    machine = board.machine
    if replayed is not None:
        machine.inputs.replay(replayed)
    host = None if image is None else open_image(image, read_only=False)
    disk = Disk("drive0", host, machine.inputs.fetch, size_bytes=SIZE, write_through=True)
    machine.attach(disk)
    drives = ((AtaDisk("drive0", disk), None), (None, None))
    ide = PiixIde(drives, machine.clock, (board.irq("ide0", 14), board.irq("ide1", 15)))
    board.add_pci(ide, 1, 1)
    board.post()
    ide.post()
    ear = Ear()
    machine.observers.append(ear)
    drivers, options = guest.images["drivers"], f"console=ttyS0 quiet {run_option(SCRIPT)}"
    firmware.load(machine, guest.kernel.read_bytes(), drivers.read_bytes(), options)
    stop = machine.run(30_000_000_000)
    assert stop.reason == "ACPI S5", ear.text[-2000:]
    digest: bytes = machine.digest()
    disk.close()
    return ear, digest


def test_ext4_on_qcow2(tmp_path: Path, qemu_img: Tool) -> None:
    path, raw = tmp_path / "disk.qcow2", tmp_path / "disk.raw"
    create(path, SIZE)
    first, digest = boot(path)
    assert b"SAME" in first.text, first.text
    qemu_img("check", path)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", path, raw)
    e2fsck = shutil.which("e2fsck", path="/usr/sbin:/sbin:/usr/bin")
    if e2fsck is not None:
        done = subprocess.run([e2fsck, "-fn", raw], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    path.unlink()
    again, digest_again = boot(None, first.inputs)
    assert again.text == first.text
    assert digest_again == digest
