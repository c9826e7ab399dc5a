"""The machine at one stop, as the panes see it: registers taken once, memory read when asked for.

Memory can only be read while the machine stands where the moment was taken; what was read is kept,
so that the screen can be drawn while the machine runs elsewhere. Nothing here goes over a bus.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from workbench.core import layout as lay
from workbench.gdbstub.memory import Memory, physical
from workbench.gdbstub.registers import REGISTERS

if TYPE_CHECKING:
    from workbench.core.machine import Machine

_PAGE: Final = 4096
_KEPT: Final = 512


class Moment:
    """Registers and memory at an instruction count."""

    def __init__(self, machine: Machine) -> None:
        cpu = machine.cpu
        self._machine: Machine | None = machine
        self.icount = machine.clock.icount
        self.time_ps = machine.clock.now_ps
        self.registers: dict[str, int] = {
            r.name: r.get(cpu) & ((1 << r.bits) - 1) for r in REGISTERS
        }
        self.registers |= {name: cpu.get(f"{name}_base") for name in ("gdtr", "idtr")}
        self.bits = code_bits(machine)
        self.cs_base = 0 if self.bits == 64 else cpu.get("seg_base", lay.CS)
        self._pages: OrderedDict[tuple[bool, int], bytes | None] = OrderedDict()
        self._kept: dict[Any, Any] = {}

    @property
    def pc(self) -> int:
        """Linear address of the next instruction."""
        return self.registers["rip"] + self.cs_base

    @property
    def live(self) -> bool:
        """Does the machine still stand here?"""
        return self._machine is not None

    @property
    def machine(self) -> Machine | None:
        """The machine, as long as it stands here."""
        return self._machine

    def leave(self) -> None:
        """The machine is about to move: from here on only what was read is there."""
        self._machine = None

    def keep(self, key: Any, make: Any) -> Any:
        """What `make` gives of the machine, made once; None if it was not made in time."""
        if key not in self._kept and self._machine is not None:
            self._kept[key] = make(self._machine)
        return self._kept.get(key)

    def put(self, key: Any, value: Any) -> None:
        """Keep what was found out about this moment."""
        self._kept[key] = value

    def read(self, address: int, count: int, is_physical: bool = False) -> list[int | None]:
        """Bytes from an address on; None for what is not mapped or was not read in time."""
        out: list[int | None] = []
        while count > 0:
            within = address & (_PAGE - 1)
            taken = min(count, _PAGE - within)
            page = self._page(address - within, is_physical)
            if page is None:
                out += [None] * taken
            else:
                held = page[within : within + taken]
                out += held
                out += [None] * (taken - len(held))
            address = (address + taken) & 0xFFFF_FFFF_FFFF_FFFF
            count -= taken
        return out

    def bytes_at(self, address: int, count: int) -> bytes:
        """Bytes from a linear address on, up to the first that is not there."""
        out = bytearray()
        for value in self.read(address, count):
            if value is None:
                break
            out.append(value)
        return bytes(out)

    def word(self, address: int, size: int = 8) -> int | None:
        """A little-endian number at a linear address."""
        data = self.bytes_at(address, size)
        return int.from_bytes(data, "little") if len(data) == size else None

    def physical(self, address: int) -> int | None:
        """Guest-physical address of a linear one."""
        found = self.keep(("gpa", address), lambda machine: physical(machine.cpu, address))
        return None if found is None else int(found)

    def _page(self, address: int, is_physical: bool) -> bytes | None:
        key = is_physical, address
        if key in self._pages:
            return self._pages[key]
        if self._machine is None:
            return None
        memory = Memory(self._machine.cpu)
        memory.is_physical = is_physical
        page = self._pages[key] = memory.read(address, _PAGE)
        while len(self._pages) > _KEPT:
            self._pages.popitem(last=False)
        return page


def code_bits(machine: Machine) -> int:
    """16, 32 or 64: how the next instruction is read."""
    cpu = machine.cpu
    attributes = cpu.get("seg_attr", lay.CS)
    if cpu.get("efer") & lay.EFER_LMA and attributes & lay.ATTR_L:
        return 64
    return 32 if attributes & lay.ATTR_DB else 16
