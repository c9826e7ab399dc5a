"""`--drive if=pflash`: firmware and its variables in flash, as QEMU's users start UEFI.

The first one has the firmware, as `--bios` else, and ends where the first 4 GiB do; the second,
below it, has the variables. Neither file is written but with rw=on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cli import specs
from workbench.core.config import FLASH_UNITS, FlashConfig
from workbench.errors import InputFileError, UsageError, os_error_text

if TYPE_CHECKING:
    from workbench.block.image import Image

__all__ = ["NAMES", "Flash", "apply", "config", "is_flash", "roms", "stores"]

INTERFACE = "pflash"
NAMES = frozenset(f"{INTERFACE}{n}" for n in range(FLASH_UNITS))
_KEYS = ("if", "format", "file", "readonly", "rw", "unit", "index", "id")


@dataclass(frozen=True, slots=True)
class Flash:
    """One device: its file, and who may write what: the guest the device, the run the file."""

    path: str
    read_only: bool
    writes_through: bool


def is_flash(spec: str) -> bool:
    """Is this `--drive` one of ours?"""
    return f"if={INTERFACE}" in spec.split(",")


def apply(args: argparse.Namespace) -> list[Flash]:
    """The flash that the options name; the first one becomes the firmware of `--bios`. Raises
    UsageError.
    """
    found: dict[int, Flash] = {}
    for spec in filter(is_flash, args.drive):
        unit, flash = _one(spec, next(n for n in range(len(found) + 1) if n not in found))
        if unit in found:
            raise UsageError(f"--drive {spec}: there is a pflash with unit={unit} already")
        found[unit] = flash
    if found:
        if 0 not in found:
            raise UsageError("expected --drive if=pflash with unit=0, which has the firmware")
        if args.bios is not None:
            raise UsageError("expected --bios or --drive if=pflash, not both: each is the firmware")
        args.bios = found[0].path
    return [found[n] for n in sorted(found)]


def _one(spec: str, place: int) -> tuple[int, Flash]:
    values = specs.pairs("--drive if=pflash", specs.parts(spec), _KEYS, ("cache", "read-only"))
    if values.get("format", "raw") != "raw":
        raise UsageError(
            f"expected --drive if=pflash with format=raw, not {values['format']!r}: flash is a "
            "file of bytes (`qemu-img convert -O raw` makes one)"
        )
    if not values.get("file"):
        raise UsageError(f"expected --drive if=pflash with file=, not {spec!r}")
    unit = values.get("unit", values.get("index", str(place)))
    if unit not in map(str, range(FLASH_UNITS)):
        raise UsageError(f"expected --drive if=pflash,unit= from 0 to 1, not {unit!r}")
    option = "--drive if=pflash"
    values["readonly"] = values.get("readonly", values.get("read-only", "off"))
    read_only, through = (specs.switch(option, values, key) for key in ("readonly", "rw"))
    if read_only and through:
        raise UsageError(f"--drive {spec}: readonly and rw=on exclude each other")
    return int(unit), Flash(values["file"], read_only, through)


def config(flashes: list[Flash]) -> dict[str, Any]:
    """The setting `flash` of the machine; raises UsageError, InputFileError."""
    made = []
    for n, flash in enumerate(flashes):
        try:
            size_bytes = Path(flash.path).stat().st_size
            made.append(asdict(FlashConfig(f"{INTERFACE}{n}", size_bytes, flash.read_only)))
        except OSError as error:
            raise InputFileError(f"the flash {flash.path}: {os_error_text(error)}") from None
        except ValueError as error:
            raise UsageError(f"--drive if=pflash,file={flash.path}: {error}") from None
    return {"flash": made} if made else {}


def roms(flashes: list[Flash]) -> dict[str, str]:
    """Files by role, without the first one, which is the BIOS's."""
    return {f"{INTERFACE}{n}": flash.path for n, flash in enumerate(flashes) if n}


def stores(flashes: list[Flash], stack: ExitStack) -> Mapping[str, Image]:
    """Open what is written through, until the stack is left; raises WorkbenchError."""
    from workbench.block.opening import open_image

    return {
        f"{INTERFACE}{n}": stack.enter_context(
            open_image(flash.path, read_only=False, format_name="raw")
        )
        for n, flash in enumerate(flashes)
        if flash.writes_through
    }
