"""Linux with ata_piix, sd_mod and sr_mod: a file system on IDE by DMA and by PIO, and replay."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from guests.build import ensure
from guests.errors import GuestError
from guests.initramfs import run_option
from workbench import firmware
from workbench.block.disk import Disk
from workbench.core.config import MachineConfig
from workbench.core.machine import Observer
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.ata.atapi import AtapiDrive
from workbench.hw.board import build_board
from workbench.hw.piix_ide import PiixIde

pytestmark = [pytest.mark.slow, pytest.mark.guest]
DISK_BYTES, CD_BYTES = 32 << 20, 1 << 20
LIMIT = 20_000_000_000
PIO = "rmmod ata_generic; rmmod ata_piix libata; insmod /modules/libata.ko dma=0;"
AGAIN = "insmod /modules/ata_piix.ko; sleep 0.5;"
SCRIPT = """
printf 'o\\nn\\np\\n1\\n\\n\\nw\\n' | fdisk /dev/sda >/dev/null 2>&1
mke2fs -q /dev/sda1 >/dev/null && mkdir /mnt && mount -t ext4 /dev/sda1 /mnt && echo MOUNTED
dd if=/dev/urandom of=/tmp/r bs=1M count=4 2>/dev/null
cp /tmp/r /mnt/r && umount /mnt && echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 /dev/sda1 /mnt
[ "$(sha256sum </tmp/r)" = "$(sha256sum </mnt/r)" ] && echo SAME
umount /mnt; sha256sum /dev/sr0; dmesg | grep -E 'ata[12]'; grep ata /proc/interrupts
"""


class Image:
    """A host's image."""

    def __init__(self, data):
        self.data = data
        self.size_bytes = len(data)

    def read(self, offset, length):
        return self.data[offset : offset + length]


class Ear(Observer):
    def __init__(self):
        self.text = bytearray()
        self.inputs = []
        self.accesses = Counter()
        self.dma = Counter()

    def on_console(self, device, data, icount):
        self.text += data

    def on_input(self, inp):
        self.inputs.append(inp)

    def on_access(self, kind, device, offset, size, is_write, value, *rest):
        self.accesses[device, offset, is_write] += 1

    def on_dma(self, device, gpa, length, is_write, icount):
        self.dma[device] += length


def boot(script, replayed=None):
    try:
        guest = ensure("generic")
    except GuestError as error:
        pytest.skip(str(error))
    gc.collect()
    board = build_board(MachineConfig(rtc_epoch_s=1_700_000_000))
    machine = board.machine
    disk, cd = Image(bytes(DISK_BYTES)), Image(bytes(range(256)) * (CD_BYTES // 256))
    if replayed is not None:
        machine.inputs.replay(replayed)
    live = replayed is None
    fetch = machine.inputs.fetch
    disks = (
        Disk("drive0", disk if live else None, fetch, size_bytes=DISK_BYTES),
        Disk("cd0", cd if live else None, fetch, True, size_bytes=CD_BYTES),
    )
    drives = ((AtaDisk("drive0", disks[0]), None), (AtapiDrive("cd0", disks[1]), None))
    ide = PiixIde(drives, machine.clock, (board.irq("ide0", 14), board.irq("ide1", 15)))
    board.add_pci(ide, 1, 1)
    board.post()
    ide.post()
    ear = Ear()
    machine.observers.append(ear)
    firmware.load(
        machine,
        guest.kernel.read_bytes(),
        guest.images["drivers"].read_bytes(),
        f"console=ttyS0 quiet {run_option(script)}",
    )
    stop = machine.run(LIMIT)
    assert (stop.kind, stop.reason) == ("shutdown", "ACPI S5"), ear.text[-2000:]
    return ear, machine.digest()


def check(text):
    for line in (
        "MOUNTED",
        "SAME",
        "fbbab289f7f94b25736c58be46a994c441fd02552cc6022352e3d86d2fab7c83  /dev/sr0",
        "ata1.00: ATA-7: WORKBENCH DISK, 1.0, max UDMA/100",
        "ata2.00: ATAPI: WORKBENCH CD-ROM, 1.0, max UDMA/100",
    ):
        assert line in text, text
    for word in ("exception", "failed", "lost interrupt", "EH complete", "timeout"):
        assert word not in text, text


def test_dma_and_its_replay():
    first, digest = boot(SCRIPT)
    check(first.text.decode("latin-1"))
    assert first.dma["piix3_ide"] > 8 << 20
    again, digest_again = boot(SCRIPT, first.inputs)
    assert (again.text, again.accesses, again.dma) == (first.text, first.accesses, first.dma)
    assert digest_again == digest


def test_pio():
    ear, _ = boot(PIO + AGAIN + SCRIPT)
    check(ear.text.decode("latin-1"))
    assert ear.dma["piix3_ide"] < 64 << 10  # of the first probe, before the module is loaded again
    assert ear.accesses["ide0", 0, False] > 500
    assert ear.accesses["ide0", 0, True] > 500
