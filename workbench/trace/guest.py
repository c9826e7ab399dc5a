"""The guest of a run: the files it starts from, and the machine built for it.

The recorder and the replayer build their machines by the same function, from the same values: what
is in the header of the trace and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import FormatError, GuestError, InputFileError, os_error_text
from workbench.trace.header import MAX_IMAGE_BYTES, Image
from workbench.trace.protocol import MachineLike
from workbench.trace.reader import Trace

KERNEL = "kernel"
INITRD = "initrd"


@dataclass(frozen=True, slots=True)
class Guest:
    """What the loader is given."""

    kernel: bytes
    initrd: bytes | None = None
    cmdline: str = ""
    kernel_path: str = ""
    initrd_path: str = ""

    @classmethod
    def from_files(cls, kernel: str, initrd: str | None, cmdline: str) -> Guest:
        """Read the files that the user named; raises `InputFileError`."""
        return cls(
            kernel=_read(kernel, KERNEL),
            initrd=None if initrd is None else _read(initrd, INITRD),
            cmdline=cmdline,
            kernel_path=kernel,
            initrd_path=initrd or "",
        )

    @classmethod
    def from_trace(cls, trace: Trace) -> Guest:
        """Take the guest out of a trace, or the files that the trace was kept apart from."""
        kernel = trace.image(KERNEL)
        if kernel is None:
            raise FormatError("the trace has no kernel", path=trace.path)
        return cls(kernel, trace.image(INITRD), trace.header.cmdline)

    def images(self, embed: bool) -> tuple[Image, ...]:
        """Describe the files for the header."""
        found = [Image.of(KERNEL, self.kernel_path, self.kernel, embed)]
        if self.initrd is not None:
            found.append(Image.of(INITRD, self.initrd_path, self.initrd, embed))
        return tuple(found)

    def contents(self) -> dict[str, bytes]:
        """Give the files by role."""
        initrd = {} if self.initrd is None else {INITRD: self.initrd}
        return {KERNEL: self.kernel, **initrd}


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
        firmware.load(machine, guest.kernel, guest.initrd, guest.cmdline)
    except firmware.LoaderError as error:
        raise GuestError(str(error)) from None
    return machine


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
