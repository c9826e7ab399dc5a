"""Statistics registers of the 82540EM (317453, 13.7): they count what passes, and reading clears.

All stick at their greatest value. The 64-bit octet counters clear when the upper half is read. What
cannot happen on this wire (collisions, CRC errors, late collisions) stays 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from workbench.core.regs import RC, Reg

__all__ = ["COUNT", "STATISTICS", "Statistics", "by_name"]

BASE: Final = 0x4000
COUNT: Final = 64
_NAMES = {
    0x00: "CRCERRS", 0x04: "ALGNERRC", 0x08: "SYMERRS", 0x0C: "RXERRC", 0x10: "MPC", 0x14: "SCC",
    0x18: "ECOL", 0x1C: "MCC", 0x20: "LATECOL", 0x28: "COLC", 0x30: "DC", 0x34: "TNCRS",
    0x38: "SEC", 0x3C: "CEXTERR", 0x40: "RLEC", 0x48: "XONRXC", 0x4C: "XONTXC", 0x50: "XOFFRXC",
    0x54: "XOFFTXC", 0x58: "FCRUC", 0x5C: "PRC64", 0x60: "PRC127", 0x64: "PRC255", 0x68: "PRC511",
    0x6C: "PRC1023", 0x70: "PRC1522", 0x74: "GPRC", 0x78: "BPRC", 0x7C: "MPRC", 0x80: "GPTC",
    0x88: "GORCL", 0x8C: "GORCH", 0x90: "GOTCL", 0x94: "GOTCH", 0xA0: "RNBC", 0xA4: "RUC",
    0xA8: "RFC", 0xAC: "ROC", 0xB0: "RJC", 0xB4: "MGTPRC", 0xB8: "MGTPDC", 0xBC: "MGTPTC",
    0xC0: "TORL", 0xC4: "TORH", 0xC8: "TOTL", 0xCC: "TOTH", 0xD0: "TPR", 0xD4: "TPT",
    0xD8: "PTC64", 0xDC: "PTC127", 0xE0: "PTC255", 0xE4: "PTC511", 0xE8: "PTC1023",
    0xEC: "PTC1522", 0xF0: "MPTC", 0xF4: "BPTC", 0xF8: "TSCTC", 0xFC: "TSCTFC",
}  # fmt: skip
STATISTICS = tuple(
    Reg(name, BASE + at, 4, 0, RC, (), "317453 13.7", index=at >> 2, attr="stats")
    for at, name in _NAMES.items()
)
MOST = 0xFFFF_FFFF
_SIZES = (64, 127, 255, 511, 1023)


def by_name(name: str) -> Reg:
    """The register called `name`."""
    return next(reg for reg in STATISTICS if reg.name == name)


LOW = tuple(by_name(name) for name in ("GORCL", "GOTCL", "TORL", "TOTL"))
HIGH = tuple(by_name(name) for name in ("GORCH", "GOTCH", "TORH", "TOTH"))


def _at(name: str) -> int:
    index = by_name(name).index
    assert index is not None
    return index


_MPC, _RNBC, _ROC = _at("MPC"), _at("RNBC"), _at("ROC")
_PRC64, _GPRC, _BPRC, _MPRC, _GORCL = (
    _at("PRC64"), _at("GPRC"), _at("BPRC"), _at("MPRC"), _at("GORCL"),
)  # fmt: skip
_TORL, _TOTL, _TPR, _TPT = _at("TORL"), _at("TOTL"), _at("TPR"), _at("TPT")
_PTC64, _GPTC, _BPTC, _MPTC, _GOTCL = (
    _at("PTC64"), _at("GPTC"), _at("BPTC"), _at("MPTC"), _at("GOTCL"),
)  # fmt: skip
_TSCTC, _TSCTFC = _at("TSCTC"), _at("TSCTFC")
_XONRXC, _XOFFRXC, _FCRUC = _at("XONRXC"), _at("XOFFRXC"), _at("FCRUC")
_XONTXC, _XOFFTXC = _at("XONTXC"), _at("XOFFTXC")


def _size_class(length: int) -> int:
    for n, limit in enumerate(_SIZES):
        if length <= limit:
            return n
    return len(_SIZES)


class Statistics:
    """Counts in the list of a state. Lengths are those on the wire, with FCS."""

    def __init__(self, stats: list[int]) -> None:
        self.stats = stats

    def bump(self, index: int, amount: int = 1) -> None:
        """Add to a 32-bit counter."""
        self.stats[index] = min(self.stats[index] + amount, MOST)

    def _octets(self, index: int, amount: int) -> None:
        stats = self.stats
        total = min((stats[index + 1] << 32 | stats[index]) + amount, (1 << 64) - 1)
        stats[index], stats[index + 1] = total & MOST, total >> 32

    def seen(self, count: int, octets: int) -> None:
        """Frames came, wanted or not."""
        self.bump(_TPR, count)
        self._octets(_TORL, octets)

    def received(self, frames: Sequence[bytes]) -> None:
        """Frames passed the filters."""
        octets = 0
        for size, count in Counter(map(len, frames)).items():
            self.bump(_PRC64 + _size_class(size + 4), count)
            octets += (size + 4) * count
        self.bump(_GPRC, len(frames))
        self._octets(_GORCL, octets)
        for frame in frames:
            if frame[0] & 1:
                self.bump(_BPRC if frame[:6] == b"\xff" * 6 else _MPRC)

    def missed(self) -> None:
        """No room in the packet buffer."""
        self.bump(_MPC)

    def no_buffer(self) -> None:
        """No descriptor when a frame came."""
        self.bump(_RNBC)

    def oversize(self) -> None:
        """Longer than RCTL allows."""
        self.bump(_ROC)

    def pause(self, xoff: bool) -> None:
        """A PAUSE frame."""
        self.bump(_XOFFRXC if xoff else _XONRXC)

    def pause_sent(self, xoff: bool) -> None:
        """A PAUSE frame of our own; the counts of good frames are without it."""
        self.bump(_XOFFTXC if xoff else _XONTXC)

    def flow_control(self) -> None:
        """A flow control frame of another kind."""
        self.bump(_FCRUC)

    def sent(self, to: bytes, lengths: Sequence[int]) -> None:
        """Frames of these lengths went out to an address."""
        for length, count in Counter(lengths).items():
            self.bump(_PTC64 + _size_class(length), count)
        self.bump(_GPTC, len(lengths))
        self.bump(_TPT, len(lengths))
        self._octets(_GOTCL, sum(lengths))
        self._octets(_TOTL, sum(lengths))
        if to[0] & 1:
            self.bump(_BPTC if to == b"\xff" * 6 else _MPTC, len(lengths))

    def segmented(self, *, failed: bool = False) -> None:
        """A segmentation context was used, or could not be."""
        self.bump(_TSCTFC if failed else _TSCTC)
