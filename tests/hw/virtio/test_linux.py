"""Debian's own virtio drivers on our devices: a file system, pings, entropy; then the replay."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from guests.initramfs import run_option
from workbench import firmware
from workbench.block.disk import Disk
from workbench.core.config import MachineConfig
from workbench.core.machine import Observer
from workbench.hw.board import build_board
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.console import VirtioConsole
from workbench.hw.virtio.net import VirtioNet
from workbench.hw.virtio.offload import checksum
from workbench.hw.virtio.pci import VirtioPci
from workbench.hw.virtio.rng import VirtioRng
from workbench.net.port import NetPort

pytestmark = [pytest.mark.slow, pytest.mark.guest]
DISK_BYTES = 16 << 20
SCRIPT = """\
cat /sys/block/vda/serial; echo; cat /sys/block/vda/device/features
printf 'n\\np\\n1\\n\\n\\nw\\n' | fdisk /dev/vda >/dev/null; sleep 0.1
mke2fs -F /dev/vda1 >/dev/null; mkdir -p /mnt; mount -t ext4 /dev/vda1 /mnt
head -c 6000000 /dev/urandom > /tmp/r; cp /tmp/r /mnt/r; sync; sha256sum < /tmp/r
umount /mnt; mount -t ext4 /dev/vda1 /mnt; sha256sum < /mnt/r; umount /mnt
ip link set eth0 up; ip addr add 10.0.0.2/24 dev eth0
ping -c 5 -i 0.2 10.0.0.1; ping -c 3 -i 0.2 -s 1400 10.0.0.1
echo for the console > /dev/hvc0
cat /sys/class/misc/hw_random/rng_current; head -c 64 /dev/hwrng | sha256sum
grep virtio /proc/interrupts
"""
TRANSPORTS = {
    "legacy": ({"modern": False}, False, ""),
    "modern": ({"legacy": False}, False, ""),
    "packed": ({}, True, ""),
    "intx": ({}, False, "pci=nomsi"),
}


class Image:
    """A disk image in memory."""

    size_bytes = DISK_BYTES

    def __init__(self):
        self.data = bytearray(DISK_BYTES)

    def read(self, offset, length):
        return bytes(self.data[offset : offset + length])

    def write(self, offset, data):
        self.data[offset : offset + len(data)] = data

    def write_zeroes(self, offset, length):
        self.data[offset : offset + length] = bytes(length)

    def flush(self):
        pass

    def close(self):
        pass


class Peer:
    """10.0.0.1, which answers ARP and pings."""

    MAC = bytes.fromhex("525400000001")

    def __init__(self):
        self.wrong = 0

    def start(self, receive):
        self.receive = receive

    def close(self):
        pass

    def send_large(self, large):
        for frame in large.cut():
            self.send(frame)

    def send(self, frame):
        sender = frame[6:12]
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1":
            reply = frame[12:20] + b"\0\2" + self.MAC + frame[38:42] + frame[22:32]
            self.receive([sender + self.MAC + reply])
        elif frame[12:14] == b"\x08\x00" and frame[23] == 1:
            end = 14 + int.from_bytes(frame[16:18], "big")
            self.wrong += bool(checksum(frame[34:end]))
            icmp = b"\0\0\0\0" + frame[38:]
            icmp = icmp[:2] + checksum(icmp).to_bytes(2, "big") + icmp[4:]
            ip = frame[12:26] + frame[30:34] + frame[26:30]
            self.receive([sender + self.MAC + ip + icmp])


class Log(Observer):
    """What a run prints, and its inputs."""

    def __init__(self):
        self.text = ""
        self.inputs = []

    def on_console(self, device, data, icount):
        self.text += data.decode("latin1")

    def on_input(self, inp):
        self.inputs.append(inp)


def run(made, how, inputs=None):
    """One boot: (log, digest, image, peer). With `inputs`, a replay without image and network."""
    transport, packed, append = TRANSPORTS[how]
    board = build_board(MachineConfig(ram_bytes=256 << 20, rtc_epoch_s=1_700_000_000, seed=42))
    machine = board.machine
    image, peer, log = Image(), Peer(), Log()
    if inputs is not None:
        machine.inputs.replay(inputs)
    disk = Disk(
        "drive0",
        image if inputs is None else None,
        machine.inputs.fetch,
        size_bytes=DISK_BYTES,
        write_through=inputs is None,
    )
    port = NetPort("net0", machine.inputs)
    if inputs is None:
        port.attach(peer)
    for n, device in enumerate(
        (
            VirtioBlk("vda", disk, machine.clock, serial="WB-0001", packed=packed),
            VirtioNet("net0", "52:54:00:12:34:56", port, packed=packed),
            VirtioRng("rng0", machine.config.seed, packed=packed),
            VirtioConsole("con0", lambda data: machine.console("con0", data), packed=packed),
        )
    ):
        board.add_pci(VirtioPci(device, **transport), 4 + n)
    board.post()
    machine.observers.append(log)
    firmware.load(
        machine,
        made.kernel.read_bytes(),
        made.images["drivers"].read_bytes(),
        f"console=ttyS0 quiet {append} {run_option(SCRIPT)}",
    )
    stop = machine.run(20_000_000_000)
    assert stop.kind == "shutdown", (stop, log.text[-2000:])
    return log, machine.digest(), image, peer


@pytest.mark.parametrize("how", TRANSPORTS)
def test_drivers_and_replay(guest, how, tmp_path):
    made = guest("generic" if how == "packed" else "cloud")
    log, digest, image, peer = run(made, how)
    lines = log.text.replace("\r", "").split("\n")
    sums = [line for line in lines if line.endswith("  -")]
    assert len(sums) == 3, log.text
    assert sums[0] == sums[1]
    assert sum("0% packet loss" in line for line in lines) == 2
    assert "WB-0001" in lines
    assert any(line.startswith("virtio_rng") for line in lines)
    assert "for the console" in lines
    features = next(line for line in lines if len(line) == 64 and set(line) <= {"0", "1"})
    assert features[32] == "01"[how != "legacy"]
    assert features[34] == "01"[how == "packed"]
    assert peer.wrong == 0
    if shutil.which("e2fsck"):
        (tmp_path / "p1").write_bytes(image.data[_first_partition(image) :])
        done = subprocess.run(
            ["e2fsck", "-f", "-n", str(tmp_path / "p1")], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout
    again, digest_again, _, _ = run(made, how, log.inputs)
    assert again.text == log.text
    assert digest_again == digest


def _first_partition(image):
    return 512 * int.from_bytes(image.data[446 + 8 : 446 + 12], "little")
