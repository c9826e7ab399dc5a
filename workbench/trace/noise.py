"""Which values differ between two runs that do the same: counters of time, addresses, time stamps.

A rule names registers and the bits of their values that are compared. What reads a clock compares
no bit; a register that takes an address of the guest's memory compares the offset in the page, for
where the page lies depends on what was allocated before. Digits that are printed count as equal,
for most of them belong to time stamps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from workbench.trace.header import Header

PAGE: Final = 0xFFF
ALL: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Rule:
    """Registers of a device from offset `first` to `last`, and the bits of values that count."""

    kind: str
    device: str
    first: int
    last: int
    bits: int = 0


_E1000_ADDRESSES: Final = (0x2800, 0x2804, 0x3800, 0x3804)  # RDBAL, RDBAH, TDBAL, TDBAH
_FIXED: Final = (
    Rule("pio", "pit", 0, 2),
    Rule("pio", "rtc", 1, 1),
    Rule("pio", "pm", 0x08, 0x0B),  # PMTMR
    Rule("mmio", "lapic", 0x380, 0x39F),  # TMICT, TMCCT
    Rule("mmio", "hpet", 0xF0, 0xF7),  # main counter
    Rule("mmio", "hpet", 0x108, 0x10F),  # comparators: absolute times
    Rule("mmio", "hpet", 0x128, 0x12F),
    Rule("mmio", "hpet", 0x148, 0x14F),
    Rule("pio", "bmide", 0x04, 0x07, PAGE),  # BMIDTPX
    Rule("pio", "bmide", 0x0C, 0x0F, PAGE),
)


def rules_for(header: Header) -> list[Rule]:
    """Give the rules for the machine of a recording."""
    rules = list(_FIXED)
    for nic in _parts(header, "nics"):
        if nic.get("model") == "e1000":
            name = str(nic.get("name"))
            rules += [Rule("mmio", name, at, at + 3, PAGE) for at in _E1000_ADDRESSES]
    virtio = [n for n in _parts(header, "nics") if n.get("model") == "virtio-net"]
    virtio += [d for d in _parts(header, "drives") if d.get("interface") == "virtio"]
    for part in virtio:
        # queue_desc, queue_driver, queue_device of the common configuration; queue_address of the
        # legacy interface is a page number.
        name = str(part.get("name"))
        rules += [Rule("mmio", name, 0x20, 0x37, PAGE), Rule("pio", name, 0x08, 0x0B)]
    return rules


def _parts(header: Header, kind: str) -> list[dict[str, Any]]:
    parts = header.machine.get(kind)
    return [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []


def digits_as_one(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Make every ASCII digit a zero."""
    digit = (values >= np.uint64(0x30)) & (values <= np.uint64(0x39))
    return np.where(digit, np.uint64(0x30), values)
