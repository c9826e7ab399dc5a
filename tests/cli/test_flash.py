"""`--drive if=pflash`, and other words of QEMU's command line for firmware."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import boot, devices, flash
from workbench.core.config import MachineConfig
from workbench.errors import InputFileError, UsageError

CODE, VARS = "if=pflash,format=raw,file=code.fd", "if=pflash,file=vars.fd"


def options(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    boot.add_boot(parser)
    devices.add_devices(parser)
    for name in ("--kernel", "--initrd", "--append"):
        parser.add_argument(name)
    return parser.parse_args([*argv])


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the options say about firmware."""
    found = flash.apply(args)
    return {**flash.config(found), **boot.firmware_config(args)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("code.fd").write_bytes(bytes(1 << 20))
    Path("vars.fd").write_bytes(bytes(8192))
    Path("odd.fd").write_bytes(bytes(5000))
    return tmp_path


def test_units_in_order_or_as_they_say() -> None:
    for argv in (
        ("--drive", f"{CODE},readonly=on", "--drive", f"{VARS},rw=on"),
        ("--drive", f"{VARS},unit=1,rw=on", "--drive", f"{CODE},readonly=on,unit=0"),
    ):
        args = options(*argv)
        found = flash.apply(args)
        assert args.bios == "code.fd"
        config = {**boot.firmware_config(args), **flash.config(found)}
        parts = MachineConfig.from_json(config).flash
        assert [(p.name, p.size_bytes, p.read_only) for p in parts] == [
            ("pflash0", 1 << 20, True), ("pflash1", 8192, False),
        ]  # fmt: skip
        assert flash.roms(found) == {"pflash1": "vars.fd"}
        assert [one.writes_through for one in found] == [False, True]
        with devices.opened(args) as attached:
            assert attached.drives == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--drive", f"{VARS},unit=1"), "expected --drive if=pflash with unit=0"),
        (("--drive", CODE, "--drive", f"{VARS},unit=0"), "a pflash with unit=0 already"),
        (("--drive", CODE, "--bios", "seabios"), "expected --bios or --drive if=pflash, not both"),
        (("--drive", f"{CODE},unit=2"), "unit= from 0 to 1, not '2'"),
        (("--drive", "if=pflash,format=qcow2,file=x"), "with format=raw, not 'qcow2'"),
        (("--drive", "if=pflash"), "expected --drive if=pflash with file="),
        (("--drive", f"{CODE},readonly=on,rw=on"), "readonly and rw=on exclude each other"),
        (("--drive", f"{CODE},serial=x"), "expected --drive if=pflash with if=, format=, file="),
        (("--drive", "if=pflash,file=odd.fd"), "in steps of 4 KiB, not 5,000 bytes"),
        (("--bios", "seabios", "--vga", "std"), "expected -vga none (or nothing): the machine has"),
        (("--bios", "seabios", "--boot", "once=x"), "expected up to three of acdn"),
    ],
)
def test_what_is_refused(argv: tuple[str, ...], message: str) -> None:
    args = options(*argv)
    with pytest.raises(UsageError) as caught:
        settings(args)
    assert message in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputFileError, match=r"the flash none\.fd: "):
        flash.config(flash.apply(options("--drive", "if=pflash,file=none.fd")))
