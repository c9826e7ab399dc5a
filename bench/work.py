"""What is measured: a boot of Debian's kernel, and four guests that do one thing each."""

from dataclasses import dataclass
from pathlib import Path

import guests
from workbench.firmware.demo.build import assemble

MICRO = Path(__file__).parent / "micro"
# The debug exit makes 2 n + 1 of the value n that a guest writes; see micro/common.inc.
SELF_CHECK_PASSED = 33


@dataclass(frozen=True, slots=True)
class Work:
    """One guest, and how to tell that it did its work."""

    name: str
    what: str
    kernel: Path
    initrd: Path | None = None
    append: str = ""
    ram_mib: int = 64
    units: int = 1  # how many of `unit` the guest does
    unit: str = "boot"
    exit_status: int = 0
    console_ends_with: bytes = b""
    input_bytes: int = 0  # size of the files that a trace may embed


@dataclass(frozen=True, slots=True)
class _Micro:
    what: str
    unit: str
    count: int
    units_per_count: int


_MICROS = {
    "loop": _Micro("tight loop: load, three adds, dec, jnz", "instructions", 300_000_000, 6),
    "copy": _Micro("memory copy: rep movsq, then SSE", "bytes", 512, 2 << 20),
    "pagefault": _Micro("page faults, each mapped by the handler", "faults", 4_000, 512),
    "syscall": _Micro("system calls: syscall and sysret", "calls", 20_000_000, 1),
}
NAMES = ("boot", *_MICROS)


def prepare(name: str, directory: Path, *, quick: bool) -> Work:
    """Make the guest `name` with its files in `directory`; `quick` makes micro guests shorter.

    Raises `guests.GuestError` if the kernel cannot be had.
    """
    if name == "boot":
        guest = guests.ensure("cloud")
        return Work(
            name="boot",
            what="Debian's cloud kernel and busybox, boot to power-off",
            kernel=guest.kernel,
            initrd=guest.images["boot"],
            input_bytes=sum(path.stat().st_size for path in (guest.kernel, guest.images["boot"])),
            append="console=ttyS0",
            ram_mib=256 if "cloud" in guest.packages[0] else 512,  # Ubuntu's need more
            console_ends_with=b"reboot: Power down",
        )
    micro = _MICROS[name]
    count = micro.count // 10 if quick else micro.count
    kernel = directory / f"{name}.elf"
    image = assemble(MICRO / f"{name}.S", {"COUNT": count})
    kernel.write_bytes(image)
    return Work(
        name=name,
        what=micro.what,
        kernel=kernel,
        input_bytes=len(image),
        units=count * micro.units_per_count,
        unit=micro.unit,
        exit_status=SELF_CHECK_PASSED,
    )
