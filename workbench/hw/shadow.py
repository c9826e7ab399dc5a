"""Shadow RAM and SMM space of the 82441FX: what the addresses below 1 MiB reach (82441FX 3.2.11,
3.2.17, 4.1).

Where PAM says so, reads of a segment come from PCI, where the BIOS is; else from the DRAM that lies
below it, and writes likewise. A segment's own pages of RAM always hold what reads see; what they
hide is kept here. Processor and bus masters see the same. Deliberately not modelled: that SMM space
is open for code in SMM only (there is no SMM, so it is open while D_OPEN says so).
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from workbench.core.bus import Window
from workbench.core.memory import PhysMemory
from workbench.core.state import StateError, decode, encode, sized

__all__ = ["AREA_BASE", "AREA_BYTES", "SEGMENTS", "ShadowRam", "ShadowState"]

AREA_BASE: Final = 0xC_0000
AREA_BYTES: Final = 0x4_0000
READ, WRITE = 1, 2  # RE and WE of a PAM nibble
D_OPEN, D_CLS, G_SMRAME = 1 << 6, 1 << 5, 1 << 3  # SMRAM
SMM_BASE, SMM_BYTES = 0xA_0000, 0x2_0000

# (base, bytes): the upper nibble of PAM0, then both nibbles of PAM1 to PAM6
SEGMENTS: Final = (
    (0xF_0000, 0x1_0000),
    *((0xC_0000 + n * 0x4000, 0x4000) for n in range(12)),
)


def modes_of(pam: Sequence[int]) -> list[int]:
    """RE and WE of each segment from the seven PAM registers."""
    nibbles = [nibble for value in pam for nibble in (value & 3, value >> 4 & 3)]
    return nibbles[1:]  # the lower nibble of PAM0 is reserved


@dataclass(slots=True)
class ShadowState:
    """How each segment is decoded, and the DRAM that reads do not see (no zeros at its end)."""

    modes: list[int] = sized(len(SEGMENTS))
    hidden: dict[int, bytearray] = field(default_factory=dict)
    smm_open: bool = False

    def __post_init__(self) -> None:
        if any(not 0 <= mode <= 3 for mode in self.modes):
            raise ValueError(f"expected segments with modes from 0 to 3, not {self.modes!r}")
        for n, data in self.hidden.items():
            if not 0 <= n < len(SEGMENTS) or len(data) > SEGMENTS[n][1] or self.modes[n] & READ:
                raise ValueError(f"expected a hidden segment, not {n!r}")


class ShadowRam:
    """The device; `rom` is what PCI answers at 0xC0000 to 0xFFFFF."""

    def __init__(self, memory: PhysMemory, rom: bytes = b"", name: str = "shadow") -> None:
        # Wires
        self._memory = memory
        memory.on_read_only_write = self._store
        # Book-keeping
        self.name = name
        self._rom = b"\xff" * AREA_BYTES
        # State
        self.state = ShadowState(modes=[READ | WRITE] * len(SEGMENTS))
        self.plug(rom)

    def window(self) -> Window:
        """Catches what the processor writes where RAM cannot be written."""
        return Window(self.name, self.name, AREA_BASE, AREA_BYTES, self._read, self._write)

    def plug(self, rom: bytes) -> None:
        """The last 128 KiB of `rom` answer below 1 MiB; all segments show PCI, as after reset."""
        visible = rom[-AREA_BYTES // 2 :]
        self.decode([READ | WRITE] * len(SEGMENTS))
        self._rom = b"\xff" * (AREA_BYTES - len(visible)) + visible
        self.reset()

    def reset(self) -> None:
        """PAM is 0, SMM space is closed; DRAM keeps its contents."""
        self.decode([0] * len(SEGMENTS))
        self.open_smm(0)

    def save(self) -> dict[str, Any]:
        """What is hidden, and the modes."""
        return encode(self.state, self.name)

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `save` gave; RAM is in place already."""
        new = decode(ShadowState, state, self.name)
        for n, mode in enumerate(new.modes):
            if (mode & READ == 0) != (n in new.hidden):
                raise StateError(f"{self.name}: expected hidden DRAM where reads go to PCI")
        self.state = new
        for n, (base, size) in enumerate(SEGMENTS):
            self._memory.set_writable(base, size, new.modes[n] == READ | WRITE)
        self._memory.set_ram(SMM_BASE, SMM_BYTES, new.smm_open)

    def decode(self, modes: Sequence[int]) -> None:
        """PAM was written."""
        state = self.state
        for n, mode in enumerate(modes):
            if mode == state.modes[n]:
                continue
            base, size = SEGMENTS[n]
            if mode & READ and n in state.hidden:
                self._memory.replace(base, bytes(state.hidden.pop(n)).ljust(size, b"\0"))
            elif not mode & READ and n not in state.hidden:
                at = base - AREA_BASE
                old = self._memory.replace(base, self._rom[at : at + size])
                state.hidden[n] = bytearray(old.rstrip(b"\0"))
            state.modes[n] = mode
            self._memory.set_writable(base, size, mode == READ | WRITE)

    def open_smm(self, smram: int) -> None:
        """SMRAM was written: 0xA0000 to 0xBFFFF are DRAM while D_OPEN says so."""
        wanted = smram & (G_SMRAME | D_OPEN | D_CLS) == G_SMRAME | D_OPEN
        if wanted != self.state.smm_open:
            self.state.smm_open = wanted
            self._memory.set_ram(SMM_BASE, SMM_BYTES, wanted)

    # -- writes to pages that cannot be written --------------------------------------------------

    def _read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._memory.read(AREA_BASE + offset, size), "little")

    def _write(self, offset: int, size: int, value: int) -> None:
        self._store(AREA_BASE + offset, value.to_bytes(size, "little"))

    def _store(self, gpa: int, data: bytes) -> None:
        """Bytes go to the DRAM below the ROM where WE is set, to the ROM, which ignores them,
        where not.
        """
        for n, (base, size) in enumerate(SEGMENTS):
            if base <= gpa < base + size and gpa + len(data) <= base + size:
                if self.state.modes[n] == WRITE:
                    hidden, at = self.state.hidden[n], gpa - base
                    hidden.extend(bytes(max(at + len(data) - len(hidden), 0)))
                    hidden[at : at + len(data)] = data
                return
