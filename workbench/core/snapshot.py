"""Snapshots of a machine's state, kept in memory: everything that decides what it does next.

RAM is held as pages that snapshots share (pages.py): saving and restoring cost what has changed.
The data TLBs belong to the state: whether an access sets an Accessed bit depends on them.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.core.engine import STATE_FIELDS, Cpu
from workbench.core.layout import CPU, TLB_BYTES
from workbench.core.pages import GROUP, Ram, restore_ram, save_ram
from workbench.core.values import bits_of

if TYPE_CHECKING:
    from workbench.core.machine import Machine

CHUNK = 1 << 16
DATA_TLBS = 3
_ZERO = bytes(CHUNK)
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@dataclass(slots=True)
class Snapshot:
    """The state of a machine at one moment (`icount`, `time_ps`)."""

    icount: int
    time_ps: int
    cpu: bytes
    parts: dict[str, Any]
    ram: Ram = field(repr=False)

    def own_bytes(self, other: Snapshot | None = None) -> int:
        """Memory that this snapshot takes besides its pages, about; `other` shares parts of it."""
        groups = len(self.ram.groups)
        if other is not None:
            groups = sum(map(operator.is_not, self.ram.groups, other.ram.groups))
        tables = 8 * (len(self.ram.groups) + GROUP * groups)
        return len(self.cpu) + tables + _plain_bytes(self.parts, other.parts if other else None)


def _plain_bytes(mine: Any, theirs: Any) -> int:
    """Memory of plain values, about; without the bytes that `theirs` holds at the same places."""
    if mine is theirs or isinstance(mine, int):
        return 32
    if isinstance(mine, dict):
        old = theirs if isinstance(theirs, dict) else {}
        size = 100 + 132 * len(mine)
        for key, value in mine.items():
            if type(value) is not int:
                size += _plain_bytes(value, old.get(key)) - 32
        return size
    if isinstance(mine, list | tuple):
        size = 100 + 40 * len(mine)
        for value in mine:
            if type(value) is not int:
                size += _plain_bytes(value, None) - 32
        return size
    return 50 + (len(mine) if isinstance(mine, bytes | str) else 0)


def _regions() -> list[tuple[int, int]]:
    """Byte ranges of the processor's structure that are state."""
    out = []
    for name in STATE_FIELDS:
        at, ty, count = CPU.fields[name]
        out.append((at, (16 if ty == "x86_fp80" else bits_of(ty) // 8) * count))
    out.append((CPU.offset("a20_mask"), 8))  # not in the digest: devices' states decide it
    out.append((CPU.offset("tlbs"), DATA_TLBS * TLB_BYTES))
    return out


def _moved(tlbs: bytes | memoryview, by: int) -> bytes:
    """Entries of TLBs with another start of RAM: their last word leads from the guest's address to
    the host's.
    """
    import numpy as np

    entries = np.frombuffer(tlbs, np.uint64).reshape(-1, 4).copy()
    entries[:, 3] += np.uint64(by & (1 << 64) - 1)
    return entries.tobytes()


def save_cpu(cpu: Cpu) -> bytes:
    """The processor's state with its data TLBs, whose entries count from the start of RAM: another
    machine of the same configuration can take them.
    """
    counts = cpu.icount.to_bytes(8, "little")
    parts = [bytes(cpu.state_view[at : at + n]) for at, n in _regions()]
    parts[-1] = _moved(parts[-1], -cpu.ram.address)
    return counts + b"".join(parts)


def restore_cpu(cpu: Cpu, data: bytes) -> None:
    """The reverse of `save_cpu`; RAM must be in place."""
    pos = 8
    cpu.flush_translations()
    for at, n in _regions():
        cpu.state_view[at : at + n] = data[pos : pos + n]
        pos += n
    cpu.state_view[at : at + n] = _moved(data[-n:], cpu.ram.address)
    icount = int.from_bytes(data[:8], "little")
    cpu.set("end_icount", icount)
    cpu.set("budget", 0)
    if cpu.get("dr", 7) & 0xFF or cpu.get("watching") or cpu.get("dr_code"):
        cpu.load_debug_registers()
    cpu.hold_writes()
    cpu.update_mode()


def nonzero_chunks(cpu: Cpu) -> Iterator[tuple[int, memoryview]]:
    """The chunks of RAM that are not all zero, with their positions."""
    base, view = cpu.ram.address, cpu.ram.view
    for at in range(0, cpu.ram_bytes, CHUNK):
        n = min(CHUNK, cpu.ram_bytes - at)
        if _memcmp(base + at, _ZERO, n) != 0:
            yield at, view[at : at + n]


def save(machine: Machine) -> Snapshot:
    """A snapshot; it shares memory with the one that was saved or restored last."""
    parts = {
        "clock": machine.clock.save(),
        "pending": machine.pending_state(),
        "inputs": machine.inputs.mark(),
        "msrs": machine.system.msrs.save(),
        "devices": {n: d.save() for n, d in machine.devices.items()},
    }
    now = machine.clock.now_ps
    ram = save_ram(machine.cpu, machine.pages)
    return Snapshot(machine.clock.icount, now, save_cpu(machine.cpu), parts, ram)


def restore(machine: Machine, snapshot: Snapshot) -> None:
    """Put a machine back; it must be of the same configuration."""
    parts = snapshot.parts
    restore_ram(machine.cpu, snapshot.ram)
    for name, device in machine.devices.items():
        device.restore(parts["devices"][name])
    machine.clock.restore(parts["clock"])
    machine.system.msrs.restore(parts["msrs"])
    machine.inputs.rewind(parts["inputs"])
    machine.restore_pending(parts["pending"])
    restore_cpu(machine.cpu, snapshot.cpu)
