"""What --drive, --nic, --netdev, --device and --do mean, and what is refused."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import devices
from workbench.cli.actions import Actions, parse_time
from workbench.core.config import MachineConfig
from workbench.errors import UsageError

Posted = tuple[str, str, bytes]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, size in (("a.raw", 1 << 20), ("b.raw", 2 << 20), ("a.iso", 4096), ("b.iso", 8192)):
        (tmp_path / name).write_bytes(bytes(size))
    return tmp_path


def made(*argv: str) -> tuple[dict[str, list[dict[str, Any]]], devices.Attachments]:
    parser = argparse.ArgumentParser()
    devices.add_devices(parser)
    with devices.opened(parser.parse_args(argv)) as attached:
        config = attached.config()
        MachineConfig.from_json(config)  # what is in the trace can be read back
        return config, attached


def test_flavours_of_virtio(folder: Path) -> None:
    config, _ = made(
        "--drive", "file=a.raw,if=virtio,disable-legacy=on,packed=on,num-queues=4",
        "--drive", "file=b.raw,if=virtio,disable-modern=on,event_idx=off,indirect_desc=off",
        "--nic", "virtio-net-device,none,queues=2",
        "--nic", "virtio-net-pci-non-transitional,in_order=off,none",
    )  # fmt: skip
    first, second = config["drives"]
    keys = ("transport", "flavour", "packed", "queues", "event_idx", "indirect", "in_order")
    assert [first[k] for k in keys] == ["pci", "modern", True, 4, True, True, True]
    assert [second[k] for k in keys] == ["pci", "legacy", False, 1, False, False, True]
    assert [config["nics"][0][k] for k in keys[:4]] == ["mmio", "transitional", False, 2]
    assert [config["nics"][1][k] for k in keys] == ["pci", "modern", False, 1, True, True, False]


def test_ports_of_a_console(folder: Path) -> None:
    config, attached = made(
        "--device", "virtio-serial-pci,output=stdio",
        "--device", "virtserialport,name=org.a,output=file:x", "--device", "virtserialport,name=b",
    )  # fmt: skip
    assert config["devices"][0]["ports"] == "org.a,b"
    assert attached.consoles == {
        "console0": "stdio", "console0.org.a": "file:x", "console0.b": "none",
    }  # fmt: skip


def test_what_qemus_users_write(folder: Path) -> None:
    config, attached = made(
        "--drive", "file=a.raw,if=ide,media=disk,format=raw,cache=none,aio=native,discard=unmap",
        "--drive", "file=b.raw,index=1,snapshot=on,read-only=on,detect-zeroes=off",
        "--drive", "file.filename=a.iso,driver=raw,bus=1,unit=0,media=cdrom,rerror=report",
        "--drive", "file=file:b.iso,if=virtio,rw=on,snapshot=off,werror=stop",
    )  # fmt: skip
    seen = [(d["interface"], d["size_bytes"], d["read_only"]) for d in config["drives"]]
    assert seen == [
        ("ide", 1 << 20, False), ("ide", 2 << 20, True), ("cdrom", 4096, True),
        ("virtio", 8192, False),
    ]  # fmt: skip
    assert attached.write_through == {"drive3"}


def test_drives_and_networks_of_devices(folder: Path) -> None:
    config, attached = made(
        "--drive", "file=a.raw,if=none,id=x,rw=on", "--drive", "file=b.raw,if=ide",
        "-device", "virtio-blk-pci,drive=x,serial=S1,packed=on",
        "-netdev", "dgram,id=n,remote=127.0.0.1:9",
        "-device", "e1000,netdev=n,mac=52:54:00:00:00:09,link=off", "-device", "virtio-rng",
        "-device", "virtio-serial-pci,output=stdio",
    )  # fmt: skip
    assert [(d["name"], d["interface"], d["serial"]) for d in config["drives"]] == [
        ("drive0", "ide", ""),
        ("drive1", "virtio", "S1"),
    ]
    assert attached.write_through == {"drive1"}
    assert [(n["model"], n["mac"], n["link"]) for n in config["nics"]] == [
        ("e1000", "52:54:00:00:00:09", False)
    ]
    assert list(attached.networks) == ["net0"]
    assert [(d["name"], d["model"]) for d in config["devices"]] == [
        ("rng0", "virtio-rng"),
        ("console0", "virtio-console"),
    ]
    assert attached.consoles == {"console0": "stdio"}


def test_discs_belong_to_the_drive_before_them(folder: Path) -> None:
    config, attached = made("--drive", "if=cdrom", "--drive", "file=b.iso,if=disc")
    assert [(d["interface"], d["size_bytes"]) for d in config["drives"]] == [
        ("cdrom", 0),
        ("disc", 8192),
    ]
    assert list(attached.images) == ["drive1"]
    config, _ = made("--cdrom", "a.iso", "--cdrom", "b.iso")
    assert [d["interface"] for d in config["drives"]] == ["cdrom", "disc"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--drive", "file=a.raw,packed=on"), "expected --drive packed= for a virtio device only"),
        (("--drive", "file=a.raw,if=virtio,num-queues=0"), "expected 1 to 16 queues, not 0"),
        (("--drive", "file=a.raw,if=virtio,num-queues=x"), "expected 1 to 16 queues, not 0"),
        (
            ("--drive", "file=a.raw,if=virtio,packed=on,disable-modern=on"),
            "expected packed rings with the modern interface",
        ),
        (
            ("--drive", "file=a.raw,if=virtio,disable-legacy=on,disable-modern=on"),
            "the legacy or the modern interface, or both",
        ),
        (("--drive", "file=a.raw,if=virtio,transport=usb"), "expected a transport of pci or mmio"),
        (("--drive", "file=a.raw,if=none"), "expected --drive if=none with id="),
        (("--drive", "file="), "expected --drive with file="),
        (("--drive", "file=a.raw,media=floppy"), "a drive is a disk or a CD-ROM drive"),
        (("--drive", "file=a.raw,cache=writethrough"), "expected --drive cache=writeback or none"),
        (("--drive", "file=a.raw,discard=ignore"), "expected --drive discard=unmap or on"),
        (("--drive", "file=a.raw,werror=report"), "a run ends when its image cannot be written"),
        (("--drive", "file=a.raw,snapshot=off"), "expected snapshot=on without rw=on"),
        (("--drive", "file=a.raw,rw=on,snapshot=on"), "expected snapshot=off with rw=on"),
        (("--drive", "file=a.raw,index=4"), "expected --drive index= from 0 to 3, not '4'"),
        (("--drive", "file=a.raw,bus=2"), "expected --drive bus= from 0 to 1, not '2'"),
        (("--drive", "file=a.raw,bus=0,index=2"), "expected --drive index=, or bus= and unit="),
        (
            ("--drive", "file=a.raw,if=none,id=x", "--device", "ide-hd,drive=x,bus=pci.0"),
            "expected --device ide-hd bus=ide.0 or ide.1, not 'pci.0'",
        ),
        (("--drive", "file=a.raw,if=virtio,index=0"), "index= for an IDE drive only"),
        (("--drive", "file=fat:rw:."), "QEMU's fat: is not supported"),
        (("--drive", "file=null-co://"), "expected a known kind of URL"),
        (("--drive", "file=a.raw,if=none,id=x"), "expected a --device for the drive or network"),
        (("--device", "virtio-blk,drive=x"), "drive= with the id of a --drive, not 'x'"),
        (("--device", "virtio-gpu"), "expected --device ide-hd, "),
        (("--device", "VGA"), "not 'VGA': the machine has no display"),
        (("--device", "virtio-rng,num-queues=2"), "expected --device virtio-rng with id=, "),
        (("--device", "e1000-pci"), "expected --device ide-hd, "),
        (("--device", "virtserialport,name=a"), "expected --device virtio-serial before"),
        (("--device", "virtio-serial", "--device", "virtserialport"), "with a name= of its own"),
        (("--device", "virtio-serial", *2 * ("--device", "virtserialport,name=a")), "of its own"),
        (("--device", "virtio-serial", "--device", "virtserialport,name=a b"), "not 'a b'"),
        (("--netdev", "user"), "expected --netdev with an id= of its own"),
        (("--nic", "e1000,none,transport=mmio"), "transport= for a virtio device only"),
        (("--nic", "e1000,link=maybe,none"), "expected --nic link=on or link=off, not 'maybe'"),
    ],
)
def test_what_is_refused(folder: Path, argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(*argv)
    assert message in str(caught.value)


def test_actions(folder: Path) -> None:
    config, _ = made("--cdrom", "a.iso", "--cdrom", "b.iso", "--nic", "e1000,none")
    acts, posted = Actions(config), list[Posted]()

    def post(*what: Any) -> None:
        posted.append(what)

    for text in ("eject", "insert", "insert", "insert drive0 1", "link", "link net0 off", "link"):
        acts.do(text, post)
    assert acts.do("power", post) == "the power button was pressed"
    assert posted == [
        ("drive0", "eject", b""),
        ("drive0", "insert", b"1"),
        ("drive0", "insert", b"0"),
        ("drive0", "insert", b"1"),
        ("net0", "link", b"\0"),
        ("net0", "link", b"\0"),
        ("net0", "link", b"\1"),
        ("acpi", "power", b""),
    ]
    for wrong in ("", "eject net0", "insert 2", "link net7 on", "reboot"):
        with pytest.raises(UsageError):
            acts.do(wrong, post)
    with pytest.raises(UsageError, match="expected a machine with a CD-ROM drive"):
        Actions({}).do("eject", post)


def test_times() -> None:
    assert [parse_time(t) for t in ("2.5", "1s", "300ms", "7us", "5ns")] == [
        2_500_000_000_000, 10**12, 3 * 10**11, 7_000_000, 5000,
    ]  # fmt: skip
    for wrong in ("", "-1", "1h", "1e9", "9999999999"):
        with pytest.raises(UsageError):
            parse_time(wrong)
