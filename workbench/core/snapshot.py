"""Snapshots of a machine's state, kept in memory: everything that decides what it does next.

RAM is held as 64 KiB chunks; zero chunks are left out, and chunks that are as in an earlier
snapshot are
shared with it.  The data TLBs belong to the state: whether an access sets an Accessed bit depends
on
them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.core.engine import PAGE, STATE_FIELDS, Cpu
from workbench.core.layout import CPU, TLB_BYTES
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
    ram: dict[int, bytes] = field(repr=False)

    def own_bytes(self, other: Snapshot | None = None) -> int:
        """Memory that this snapshot takes beyond what it shares with `other`."""
        theirs = other.ram if other else {}
        return len(self.cpu) + sum(len(c) for at, c in self.ram.items() if theirs.get(at) is not c)


def _regions() -> list[tuple[int, int]]:
    """Byte ranges of the processor's structure that are state."""
    out = []
    for name in STATE_FIELDS:
        at, ty, count = CPU.fields[name]
        out.append((at, (16 if ty == "x86_fp80" else bits_of(ty) // 8) * count))
    out.append((CPU.offset("tlbs"), DATA_TLBS * TLB_BYTES))
    return out


def save_cpu(cpu: Cpu) -> bytes:
    """The processor's state with its data TLBs."""
    counts = cpu.icount.to_bytes(8, "little")
    return counts + b"".join(bytes(cpu.state_view[at : at + n]) for at, n in _regions())


def restore_cpu(cpu: Cpu, data: bytes) -> None:
    """The reverse of `save_cpu`; RAM must be in place."""
    pos = 8
    cpu.flush_translations()
    for at, n in _regions():
        cpu.state_view[at : at + n] = data[pos : pos + n]
        pos += n
    icount = int.from_bytes(data[:8], "little")
    cpu.set("end_icount", icount)
    cpu.set("budget", 0)
    if cpu.get("dr", 7) & 0xFF or cpu.get("watching") or cpu.get("dr_code"):
        cpu.load_debug_registers()
    cpu.protect_code()
    cpu.update_mode()


def nonzero_chunks(cpu: Cpu) -> Iterator[tuple[int, memoryview]]:
    """The chunks of RAM that are not all zero, with their positions."""
    base, view = cpu.ram.address, cpu.ram.view
    for at in range(0, cpu.ram_bytes, CHUNK):
        n = min(CHUNK, cpu.ram_bytes - at)
        if _memcmp(base + at, _ZERO, n) != 0:
            yield at, view[at : at + n]


def save_ram(cpu: Cpu, like: dict[int, bytes] | None = None) -> dict[int, bytes]:
    """RAM chunks by position; those equal to chunks of `like` are shared."""
    out: dict[int, bytes] = {}
    base, view = cpu.ram.address, cpu.ram.view
    like = like or {}
    for at in range(0, cpu.ram_bytes, CHUNK):
        n = min(CHUNK, cpu.ram_bytes - at)
        old = like.get(at, _ZERO)
        if _memcmp(base + at, old, n) == 0:
            if old is not _ZERO:
                out[at] = old
        elif old is _ZERO or _memcmp(base + at, _ZERO, n) != 0:
            out[at] = bytes(view[at : at + n])
    return out


def restore_ram(cpu: Cpu, chunks: dict[int, bytes]) -> None:
    """Make RAM what it was; translations of pages that change are dropped."""
    base = cpu.ram.address
    for at in range(0, cpu.ram_bytes, CHUNK):
        n = min(CHUNK, cpu.ram_bytes - at)
        want = chunks.get(at, _ZERO)
        if _memcmp(base + at, want, n) == 0:
            continue
        for page in range(0, n, PAGE):
            piece = want[page : page + PAGE]
            if _memcmp(base + at + page, piece, len(piece)) != 0:
                cpu.write_position(at + page, piece)


def save(machine: Machine, like: Snapshot | None = None) -> Snapshot:
    """A snapshot; `like` is an earlier one to share memory with."""
    parts = {
        "clock": machine.clock.save(),
        "pending": machine.pending_state(),
        "inputs": machine.inputs.mark(),
        "msrs": machine.system.msrs.save(),
        "devices": {n: d.save() for n, d in machine.devices.items()},
    }
    ram = save_ram(machine.cpu, like.ram if like else None)
    now = machine.clock.now_ps
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
