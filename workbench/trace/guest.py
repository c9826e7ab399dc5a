"""The guest of a run: the files it starts from, and the machine built for it.

The recorder and the replayer build their machines by the same function, from the same values: what
is in the header of the trace and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from workbench.errors import FormatError, GuestError, InputFileError, os_error_text
from workbench.trace.header import MAX_IMAGE_BYTES, Image
from workbench.trace.protocol import MachineLike
from workbench.trace.reader import Trace

KERNEL = "kernel"
INITRD = "initrd"
BIOS = "bios"
OPTION_ROM = "option-rom"
ROM_OF = "romfile:"
FLASH = "pflash"


@dataclass(frozen=True, slots=True)
class Rom:
    """A file that the machine has in a ROM."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Guest:
    """What the machine starts from: a kernel for the loader, or `roms` by role, a BIOS among
    them, or both: then the BIOS boots the kernel by the option ROM among them that does so.
    """

    kernel: bytes | None = None
    initrd: bytes | None = None
    cmdline: str = ""
    kernel_path: str = ""
    initrd_path: str = ""
    roms: Mapping[str, Rom] = field(default_factory=dict)

    @classmethod
    def from_files(
        cls,
        kernel: str | None,
        initrd: str | None,
        cmdline: str,
        roms: Mapping[str, str] | None = None,
    ) -> Guest:
        """Read the files that the user named; raises `InputFileError`."""
        return cls(
            kernel=None if kernel is None else _read(kernel, KERNEL),
            initrd=None if initrd is None else _read(initrd, INITRD),
            cmdline=cmdline,
            kernel_path=kernel or "",
            initrd_path=initrd or "",
            roms={role: Rom(path, _read(path, role)) for role, path in (roms or {}).items()},
        )

    @classmethod
    def from_trace(cls, trace: Trace) -> Guest:
        """Take the guest out of a trace, or the files that the trace was kept apart from."""
        kernel = trace.image(KERNEL)
        roms = {
            image.role: Rom(image.path, trace.image(image.role) or b"")
            for image in trace.header.images
            if image.role not in (KERNEL, INITRD)
        }
        if kernel is None and BIOS not in roms:
            raise FormatError("the trace has neither a kernel nor a BIOS", path=trace.path)
        return cls(kernel, trace.image(INITRD), trace.header.cmdline, roms=roms)

    def images(self, embed: bool) -> tuple[Image, ...]:
        """Describe the files for the header."""
        paths = {KERNEL: self.kernel_path, INITRD: self.initrd_path}
        paths |= {role: rom.path for role, rom in self.roms.items()}
        return tuple(
            Image.of(role, paths[role], data, embed) for role, data in self.contents().items()
        )

    def contents(self) -> dict[str, bytes]:
        """Give the files by role."""
        files = {KERNEL: self.kernel, INITRD: self.initrd}
        files |= {role: rom.data for role, rom in self.roms.items()}
        return {role: data for role, data in files.items() if data is not None}


Builder = Callable[[Mapping[str, Any], Guest], MachineLike]
"""Makes a machine from the JSON of its MachineConfig and loads the guest into it."""


def build_machine(
    config: Mapping[str, Any],
    guest: Guest,
    images: Mapping[str, Any] | None = None,
    networks: Mapping[str, Any] | None = None,
    write_through: Collection[str] = (),
) -> MachineLike:
    """Build the machine and load the guest; raises `GuestError` with the loader's sentence.

    A recording gives what is behind the drives and NICs of the configuration.
    """
    from workbench import firmware
    from workbench.core.config import MachineConfig
    from workbench.hw.board import build_pc

    try:
        settings = MachineConfig.from_json(config)
    except ValueError as error:
        raise GuestError(f"this machine cannot be built: {error}") from None
    try:
        machine = build_pc(settings, images, networks, write_through)
    except ValueError as error:
        raise GuestError(f"this machine cannot be built: {error}") from None
    except (MemoryError, OSError):
        raise GuestError(
            f"the host has no memory for a guest of {settings.ram_bytes >> 20:,} MiB"
        ) from None
    try:
        if BIOS in guest.roms:
            items = None
            if guest.kernel is not None:
                items = firmware.bios_kernel(
                    guest.kernel, guest.initrd, guest.cmdline, settings.ram_bytes
                )
            variables = [rom.data for role, rom in guest.roms.items() if role.startswith(FLASH)]
            firmware.load_bios(
                machine, guest.roms[BIOS].data, _option_roms(guest), items, variables
            )
        else:
            assert guest.kernel is not None
            load = partial(firmware.load, machine, guest.kernel, guest.initrd, guest.cmdline)
            load()
            if machine.restart is not None:
                machine.restart = partial(_in_turn, machine.restart, load)
        for role, rom in guest.roms.items():
            if role.startswith(ROM_OF):
                firmware.plug_rom(machine, role.removeprefix(ROM_OF), rom.data)
    except firmware.LoaderError as error:
        raise GuestError(str(error)) from None
    return machine


def _in_turn(*calls: Callable[[], None]) -> None:
    for call in calls:
        call()


def _option_roms(guest: Guest) -> dict[str, bytes]:
    found = ((role, rom) for role, rom in guest.roms.items() if role.startswith(OPTION_ROM))
    return {Path(rom.path).name: rom.data for _, rom in found}


def _read(path: str, role: str) -> bytes:
    try:
        size = Path(path).stat().st_size
        if size > MAX_IMAGE_BYTES:
            raise InputFileError(
                f"the {role} {path}: {size:,} bytes are more than a guest can take"
            )
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = os_error_text(error) if isinstance(error, OSError) else "no valid file name"
        raise InputFileError(f"the {role} {path}: {reason}") from None
