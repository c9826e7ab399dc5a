"""`--bios`, `--boot`, `--option-rom` and `--debugcon`: booting as a PC does."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from workbench.cli.options import serial_output
from workbench.cli.roms import IPXE_FILES, bios_path, first_of, linuxboot_path
from workbench.cli.specs import switch
from workbench.core.config import FirmwareConfig, NicConfig
from workbench.errors import UsageError

DEBUG_DEVICE = "bios"
_BOOT = ("order", "once", "menu", "strict")
_TIMES = {"splash-time": "splash_time_ms", "reboot-timeout": "reboot_timeout_ms"}


def add_boot(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--bios", "-bios", metavar="FILE|seabios|ovmf",
        help="start in firmware, which boots the kernel, a drive, CD or network")  # fmt: skip
    add("--boot", "-boot", metavar="SPEC",
        help="with --bios: [order=]acdn (floppy, disk, CD, network)[,once=acdn][,menu=on]"
        "[,splash-time=MS][,reboot-timeout=MS][,strict=on]; a bootindex=N goes first")  # fmt: skip
    add("--option-rom", "-option-rom", metavar="FILE", action="append", default=[],
        help="with --bios: a ROM for it to run (may be repeated)")  # fmt: skip
    add("--debugcon", "-debugcon", metavar="stdio|file:PATH",
        help="where the BIOS's debug messages go; they are in the trace anyway")  # fmt: skip
    for name in ("vga", "display"):
        add(f"--{name}", f"-{name}", metavar="none", help=argparse.SUPPRESS)


def firmware_config(args: argparse.Namespace) -> dict[str, Any]:
    """The setting `firmware` of the machine, if there is one; raises UsageError."""
    for name in ("vga", "display"):
        if getattr(args, name) not in (None, "none"):
            raise UsageError(
                f"expected -{name} none (or nothing): the machine has no display; firmware, boot "
                "loaders and the kernel (console=ttyS0) use the first serial port"
            )
    if args.bios is None:
        if args.kernel is None:
            raise UsageError("expected --kernel FILE, or --bios seabios to boot from a drive")
        for name in ("boot", "option_rom", "debugcon"):
            if getattr(args, name):
                raise UsageError(f"expected --{name.replace('_', '-')} with --bios")
        return {}
    if args.kernel is None:
        for name in ("initrd", "append"):
            if getattr(args, name):
                raise UsageError(f"expected --{name} with --kernel")
    return {"firmware": asdict(_boot(args.boot))}


def _boot(spec: str | None) -> FirmwareConfig:
    """`--boot`, as QEMU writes it."""
    values: dict[str, str] = {}
    for n, part in enumerate(spec.split(",") if spec else ()):
        key, equals, value = part.partition("=")
        if not equals and not n:
            key, value = "order", key
        if key not in (*_BOOT, *_TIMES):
            known = "=, ".join((*_BOOT, *_TIMES))
            raise UsageError(f"expected --boot with {known}=, not {part!r}")
        values[key] = value
    settings: dict[str, Any] = {
        "menu": switch("--boot", values, "menu"),
        "strict": switch("--boot", values, "strict"),
    }
    for key, name in (("order", "boot_order"), ("once", "once")):
        if key in values:
            settings[name] = values[key]
    for key, name in _TIMES.items():
        if key in values:
            if not values[key].isdecimal():
                raise UsageError(f"expected --boot {key}= in milliseconds, not {values[key]!r}")
            settings[name] = int(values[key][:9])
    try:
        return FirmwareConfig(**settings)
    except ValueError as error:
        raise UsageError(f"--boot {spec}: {error}") from None


def _network_roms(args: argparse.Namespace, nics: Sequence[NicConfig]) -> dict[str, str]:
    if args.bios is None:
        return {}
    boot = _boot(args.boot)
    wanted = "n" in boot.boot_order + boot.once
    found = {
        nic.name: first_of(IPXE_FILES[nic.model])
        for nic in nics
        if nic.transport == "pci" and (wanted or nic.boot_index >= 0)
    }
    return {name: path for name, path in found.items() if path}


def debug_outputs(args: argparse.Namespace) -> dict[str, int]:
    """The file descriptor of the BIOS's messages, by device."""
    if args.debugcon is None:
        return {}
    fd = serial_output(args.debugcon, "--debugcon")
    return {} if fd is None else {DEBUG_DEVICE: fd}


def guest_roms(
    args: argparse.Namespace, of_devices: Mapping[str, str], nics: Sequence[NicConfig]
) -> dict[str, str]:
    """Files of the BIOS, of the option ROMs, and of those that devices have, by role.

    A NIC that a BIOS shall boot from has iPXE where it is installed, unless `of_devices` says what
    it has, "" for nothing.
    """
    chosen = {**_network_roms(args, nics), **of_devices}
    roms = {f"romfile:{name}": path for name, path in chosen.items() if path}
    if args.bios is not None:
        roms["bios"] = bios_path(args.bios)
        if args.kernel is not None:
            roms["option-rom-kernel"] = linuxboot_path()
        roms |= {f"option-rom{n}": path for n, path in enumerate(args.option_rom)}
    return roms
