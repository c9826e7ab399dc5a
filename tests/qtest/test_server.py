"""The program over its sockets, as QEMU's client library uses it."""

import socket
import subprocess
import time

import pytest

from tests.qtest.wire import OURS, QEMU, Wire


def test_as_libqtest_does(tmp_path):
    (tmp_path / "d").write_bytes(bytes(1 << 16))
    drive = f"file={tmp_path}/d,if=ide,cache=writeback,format=raw"
    with Wire(OURS, tmp_path, "-machine", "pc", "-drive", drive, "-accel", "qtest") as wire:
        assert wire.greeting["QMP"]["version"]["package"].startswith("workbench")
        assert wire.send("endianness") == "OK little"
        assert wire.send("irq_intercept_in ioapic") == "OK"
        wire.config(1, 1, 4)
        wire.send("outl 0xcfc 7")
        wire.send("outb 0x1f7 0xec")
        assert wire.irqs == {14: True}
        assert wire.number("inb 0x1f7") & 0x88 == 0x08
        assert wire.irqs == {14: False}
        assert wire.qmp("system_reset") == {"return": {}}
        wire.event("RESET")
        assert wire.close() == 0
        assert wire.errors == ""


def test_a_flush_is_held_by_the_monitor(tmp_path):
    (tmp_path / "d").write_bytes(bytes(1 << 16))
    with Wire(OURS, tmp_path, "-drive", f"file=blkdebug::{tmp_path}/d,if=ide,format=raw") as wire:
        wire.config(1, 1, 4)
        wire.send("outl 0xcfc 7")
        line = 'qemu-io ide0-hd0 "break flush_to_os A"'
        assert wire.qmp("human-monitor-command", **{"command-line": line}) == {"return": ""}
        wire.send("outb 0x1f7 0xe7")
        assert wire.number("inb 0x3f6") & 0x80
        wire.send("clock_step 1000000000")
        assert wire.number("inb 0x3f6") & 0x80
        line = 'qemu-io ide0-hd0 "resume A"'
        wire.qmp("human-monitor-command", **{"command-line": line})
        assert wire.number("inb 0x3f6") & 0x80 == 0


def test_an_error_stops_the_machine_until_cont(tmp_path):
    (tmp_path / "d").write_bytes(bytes(1 << 16))
    (tmp_path / "r").write_text('[inject-error]\nevent = "flush_to_disk"\nonce = "on"\n')
    drive = f"file=blkdebug:{tmp_path}/r:{tmp_path}/d,if=ide,format=raw,werror=stop"
    with Wire(OURS, tmp_path, "-drive", drive) as wire:
        wire.config(1, 1, 4)
        wire.send("outl 0xcfc 7")
        wire.send("outb 0x1f7 0xe7")
        wire.event("STOP")
        assert wire.qmp("query-status")["return"]["status"] == "io-error"
        assert wire.number("inb 0x3f6") & 0x80
        wire.qmp("cont")
        assert wire.number("inb 0x3f6") & 0x81 == 0


def test_it_listens(tmp_path):
    path = tmp_path / "listening"
    program = subprocess.Popen([*OURS, "-qtest", f"unix:{path},server=on"])
    client = socket.socket(socket.AF_UNIX)
    for _ in range(600):
        try:
            client.connect(str(path))
            break
        except OSError:
            program.poll()
            time.sleep(0.05)
    client.sendall(b"clock_step 7\nendian")
    assert client.recv(100) == b"OK 7\n"
    client.sendall(b"ness\n")
    assert client.recv(100) == b"OK little\n"
    client.close()
    assert program.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "expected -qtest unix:PATH or -qmp unix:PATH"),
        (("-qtest", "pipe"), "expected unix:PATH or tcp:HOST:PORT, not 'pipe'"),
        (("-qtest", "unix:/nowhere/x"), "unix:/nowhere/x: no such file or directory"),
        (("-qtest", "unix:/x", "-M", "sun"), "expected a machine of pc"),
    ],
)
def test_errors_are_a_sentence(options, sentence):
    done = subprocess.run(
        [*OURS, *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert done.stderr.startswith(f"workbench-qtest: {sentence}")
    assert done.stderr.count("\n") == 1


# What differs from QEMU 7.2 in configuration space after reset: (slot, function, offset) -> why.
SUBSYSTEM = "QEMU gives every function its own subsystem; the chips have none, or their maker's"
DIFFERENCES = {
    **dict.fromkeys(((1, 0, 0x2C), (1, 1, 0x2C), (1, 3, 0x2C)), SUBSYSTEM),
    (4, 0, 0x2C): SUBSYSTEM,
    (4, 0, 0x14): "the 82540EM has its I/O window behind BAR2 (317453 4.1), QEMU behind BAR1",
    (4, 0, 0x18): "likewise",
    (4, 0, 0x3C): "MIN_GNT is 0xff (317453 4.1)",
}


@pytest.mark.qemu
@pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")
def test_configuration_space_as_qemus(tmp_path):
    """Vendor, device, class and BAR sizes; with TCG held by -S, since Debian's QEMU has no
    accelerator of the name qtest.
    """
    options = ["-machine", "pc,acpi=on", "-nodefaults"]
    for n, part in enumerate(("e1000", "virtio-rng-pci", "virtio-serial-pci"), start=4):
        options += ["-device", f"{part},addr={n}"]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    seen = []
    for program, place, extra in (
        (OURS, tmp_path / "a", ()),
        ((QEMU,), tmp_path / "b", ("-accel", "tcg", "-S")),
    ):
        with Wire(program, place, *options, *extra) as wire:
            found = {}
            for slot, function in ((0, 0), (1, 0), (1, 1), (1, 3), (4, 0), (5, 0), (6, 0)):
                for offset in (0x00, 0x08, 0x2C, 0x3C):
                    found[slot, function, offset] = wire.config(slot, function, offset)
                for offset in range(0x10, 0x28, 4):
                    wire.config(slot, function, offset)
                    wire.send("outl 0xcfc 0xffffffff")
                    found[slot, function, offset] = wire.number("inl 0xcfc")
            seen.append(found)
    differ = {key for key, value in seen[0].items() if value != seen[1][key]}
    assert differ == DIFFERENCES.keys()


# Words of IDENTIFY DEVICE that differ from QEMU 7.2's, and why (ATA/ATAPI-7 volume 1, 6.17).
IDENTIFY = {
    **dict.fromkeys((4, 5, 20, 21, 22, 48, 52, 62), "obsolete: this drive leaves them 0"),
    **dict.fromkeys(range(27, 34), "the name of the model"),
    49: "bit 10: IORDY can be disabled",
    50: "bit 14 shall be set",
    69: "bit 5: trimmed sectors read as zeroes",
    80: "this drive claims ATA-1 to ATA-7",
    81: "QEMU names a minor version",
    **dict.fromkeys((82, 85), "this drive has power management, look-ahead, buffers, NOP"),
    **dict.fromkeys((84, 87), "this drive has WRITE DMA FUA EXT"),
    88: "QEMU's drive starts with a mode of Ultra DMA selected",
    105: "the most blocks of DATA SET MANAGEMENT",
    106: "one logical sector in a physical one",
    255: "the integrity word",
}


@pytest.mark.qemu
@pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")
def test_identify_as_qemus(tmp_path):
    words = []
    (tmp_path / "d").write_bytes(bytes(64 << 20))
    drive = f"file={tmp_path}/d,if=ide,format=raw"
    options = ("-nodefaults", "-drive", drive, "-global", "ide-hd.serial=S")
    for program, extra in ((OURS, ()), ((QEMU,), ("-accel", "tcg", "-S"))):
        more = ("-global", "ide-hd.ver=1.0", *extra)
        with Wire(program, tmp_path, "-machine", "pc", *options, *more) as wire:
            wire.config(1, 1, 4)
            wire.send("outl 0xcfc 7")
            wire.send("outb 0x1f6 0xe0")
            wire.send("outb 0x1f7 0xec")
            deadline = time.monotonic() + 60
            while wire.number("inb 0x3f6") & 0x80:
                assert time.monotonic() < deadline
            words.append([wire.number("inw 0x1f0") for _ in range(256)])
    ours, theirs = words
    assert {n for n in range(256) if ours[n] != theirs[n]} == IDENTIFY.keys()
