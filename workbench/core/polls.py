"""Registers that a guest polls: read without leaving generated code, as often as it likes.

What some registers read as is known until something happens to their device: a timer counts guest
time, a status stays as it is. A driver that waits reads one of them a million times. The machine,
which has made one such read itself, tells the processor what the next ones give (`offer`); the
processor makes them and notes each in a row (`take`), from which the machine tells its observers
afterwards. Nothing of it is seen by the guest or in the trace: value, guest time and order are
those of reads that leave.

The offer holds until generated code is left for anything that could change a device. So that no
deadline is passed, the machine leaves time for the reads that it allows (`ALLOWED`).
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from workbench.core.clock import PS_PER_SECOND
from workbench.core.lang import fn, store, u32
from workbench.core.layout import ACCESS_SLOTS, CPU

if TYPE_CHECKING:
    from workbench.core.engine import Cpu

ALLOWED: Final = 4096
"""Most reads between two moments at which the machine looks up."""
FEWEST: Final = 8
MOST_HZ: Final = 1 << 24
PORT: Final = 1 << 62
"""In an address: it is a port."""
NOWHERE: Final = (1 << 64) - 1
_ROW_WORDS: Final = 3  # icount, pc, value
ROW_BYTES: Final = 8 * _ROW_WORDS
"""Of each read in `Polls.rows`."""


class Steady(NamedTuple):
    """What a register reads as until something happens to its device: `value`, which grows with the
    periods of a clock of `hz` (below MOST_HZ) since the machine started, modulo `mask` + 1.
    """

    value: int
    hz: int = 0
    mask: int = 0xFFFFFFFF


class Place(NamedTuple):
    """The register that is polled."""

    kind: str
    device: str
    offset: int
    size: int
    addr: int


@dataclass(frozen=True, slots=True)
class Polls:
    """Reads of one register; `rows` are its 64-bit words icount, pc and value for each."""

    place: Place
    rows: bytes

    def __len__(self) -> int:
        return len(self.rows) // ROW_BYTES

    @property
    def last_icount(self) -> int:
        """Instruction count of the last one."""
        return int.from_bytes(self.rows[-ROW_BYTES : 8 - ROW_BYTES], "little")

    def each(self) -> Iterator[tuple[int, int, int]]:
        """Give icount, pc and value of each."""
        words = memoryview(self.rows).cast("Q").tolist()
        return zip(words[0::3], words[1::3], words[2::3], strict=True)


class PollTable:
    """The processor's table of such reads: the one offer, and the rows."""

    def __init__(self, cpu: Cpu, cost_ps: int) -> None:
        self._cpu, self._q = cpu, cpu._q
        self._rows = mmap.mmap(-1, ALLOWED * ROW_BYTES)
        self._place: Place | None = None
        self.offered = True
        self.cost_ps = cost_ps
        cpu.set("poll_rows", ctypes.addressof(ctypes.c_char.from_buffer(self._rows)))
        cpu.set("poll_cost_ps", cost_ps)
        self.withdraw()

    def offer(self, place: Place, steady: Steady) -> None:
        """The next reads of this place may be made by the processor."""
        assert steady.hz < MOST_HZ
        q = self._q
        self._place, self.offered = place, True
        q[_AT] = place.addr | (PORT if place.kind == "pio" else 0)
        q[_SIZE], q[_HZ] = place.size, steady.hz
        q[_ADD], q[_MASK] = steady.value, steady.mask & (1 << 8 * place.size) - 1

    def withdraw(self) -> None:
        """Something happens, or could: the next read has to ask the device."""
        if self.offered:
            self.offered = False
            self._q[_AT] = NOWHERE

    def allow(self, spare_ps: int) -> int:
        """Allow as many reads as there is time for before a deadline in `spare_ps`; gives the time
        that instructions have beside them.
        """
        cost = self.cost_ps
        reads = min(ALLOWED, spare_ps // (2 * cost)) if cost else ALLOWED
        if reads < FEWEST:
            reads = 0
        self._q[_LEFT] = reads
        return spare_ps - reads * cost

    def take(self) -> Polls | None:
        """The reads that were made since the last call."""
        count = self._q[_COUNT]
        if not count:
            return None
        self._q[_COUNT] = 0
        assert self._place is not None
        return Polls(self._place, self._rows[: count * ROW_BYTES])


_AT, _SIZE, _HZ, _ADD, _MASK, _LEFT, _COUNT = (
    CPU.offset(f"poll_{name}") >> 3 for name in ("at", "size", "hz", "add", "mask", "left", "count")
)


@fn("ptr", "i64", "i64", "i64", "i64", ret="i32")
def polled(base: Any, at: Any, size: Any, icount: Any, pc: Any) -> Any:
    """Make a read that is on offer, as if it had left and come back: 1, and its value is in the
    instruction's list of accesses; else 0.
    """
    cpu = CPU.view(base)
    made = u32(0)
    if cpu.poll_at == at:
        n = cpu.acc_count
        if (
            (cpu.poll_size == size)
            & (cpu.poll_left != 0)
            & (cpu.watching == 0)
            & (n < ACCESS_SLOTS)
        ):
            value = cpu.poll_add
            if cpu.poll_hz != 0:
                now = icount * cpu.ps_per_insn + cpu.bias_ps
                seconds = now // PS_PER_SECOND
                rest = now - seconds * PS_PER_SECOND
                value += seconds * cpu.poll_hz + rest * cpu.poll_hz // PS_PER_SECOND
            value &= cpu.poll_mask
            row = cpu.poll_rows + cpu.poll_count * ROW_BYTES
            store(row, icount)
            store(row + 8, pc)
            store(row + 16, value)
            cpu.poll_count = cpu.poll_count + 1
            cpu.poll_left = cpu.poll_left - 1
            cpu.bias_ps = cpu.bias_ps + cpu.poll_cost_ps
            cpu.acc_value[n.zx(64)] = value
            cpu.acc_count = n + 1
            cpu.acc_cursor = n + 1
            made = u32(1)
    return made


__all__ = ["ALLOWED", "PORT", "ROW_BYTES", "Place", "PollTable", "Polls", "Steady", "polled"]
