"""Snapshots of a machine's state, kept in memory: everything that decides what it does next.

RAM is held as pages, in groups; what is as in the snapshot before is shared with it. The processor
notes the pages that are written (`Cpu.dirty_pages`), so that saving and restoring cost what has
changed. The data TLBs belong to the state: whether an access sets an Accessed bit depends on them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.core.engine import GROUP, PAGE, STATE_FIELDS, Cpu, Pages
from workbench.core.layout import CPU, TLB_BYTES
from workbench.core.values import bits_of

if TYPE_CHECKING:
    from workbench.core.machine import Machine

CHUNK = 1 << 16
DATA_TLBS = 3
_ZERO = bytes(CHUNK)
_ZERO_PAGE = bytes(PAGE)
_OVERHEAD_BYTES = 100
"""What a small object takes, about."""
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@dataclass(slots=True)
class Snapshot:
    """The state of a machine at one moment (`icount`, `time_ps`)."""

    icount: int
    time_ps: int
    cpu: bytes
    parts: dict[str, Any]
    ram: Pages = field(repr=False)

    def own_bytes(self, other: Snapshot | None = None) -> int:
        """Memory that this snapshot takes beyond what it shares with `other`, about."""
        total = len(self.cpu) + 8 * len(self.ram)
        theirs = other.ram if other else ((_ZERO_PAGE,) * GROUP,) * len(self.ram)
        for mine, old in zip(self.ram, theirs, strict=True):
            if mine is not old:
                total += 8 * GROUP
                for page, before in zip(mine, old, strict=False):
                    if page is not before and page is not _ZERO_PAGE:
                        total += PAGE + _OVERHEAD_BYTES
        return total + _plain_bytes(self.parts, other.parts if other else None)


def _plain_bytes(mine: Any, theirs: Any) -> int:
    """Memory of plain values, about; without the bytes that `theirs` holds at the same places."""
    if mine is theirs:
        return 0
    if isinstance(mine, dict):
        old = theirs if isinstance(theirs, dict) else {}
        parts = sum(_plain_bytes(value, old.get(name)) for name, value in mine.items())
        return parts + _OVERHEAD_BYTES * (1 + len(mine))
    if isinstance(mine, list | tuple):
        return sum(_plain_bytes(value, None) for value in mine) + 8 * len(mine)
    return len(mine) + _OVERHEAD_BYTES if isinstance(mine, bytes | str) else 32


def total_bytes(snapshots: Iterable[Snapshot]) -> int:
    """Memory that all of these take together, about."""
    total, groups, pages = 0, dict[int, tuple[bytes, ...]](), set[int]()
    before = None
    for snapshot in snapshots:
        total += len(snapshot.cpu) + 8 * len(snapshot.ram)
        total += _plain_bytes(snapshot.parts, before.parts if before else None)
        groups.update(zip(map(id, snapshot.ram), snapshot.ram, strict=True))
        before = snapshot
    for group in groups.values():
        pages.update(map(id, group))
    pages.discard(id(_ZERO_PAGE))
    return total + 8 * GROUP * len(groups) + (PAGE + _OVERHEAD_BYTES) * len(pages)


def _regions() -> list[tuple[int, int]]:
    """Byte ranges of the processor's structure that are state."""
    out = []
    for name in STATE_FIELDS:
        at, ty, count = CPU.fields[name]
        out.append((at, (16 if ty == "x86_fp80" else bits_of(ty) // 8) * count))
    out.append((CPU.offset("a20_mask"), 8))  # not in the digest: devices' states decide it
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
    cpu.hold_writes()
    cpu.update_mode()


def nonzero_chunks(cpu: Cpu) -> Iterator[tuple[int, memoryview]]:
    """The chunks of RAM that are not all zero, with their positions."""
    base, view = cpu.ram.address, cpu.ram.view
    for at in range(0, cpu.ram_bytes, CHUNK):
        n = min(CHUNK, cpu.ram_bytes - at)
        if _memcmp(base + at, _ZERO, n) != 0:
            yield at, view[at : at + n]


def save_ram(cpu: Cpu) -> Pages:
    """RAM as it is now; it shares what has not been written since the last save or restore."""
    pages = -(-cpu.ram_bytes // PAGE)
    kept = cpu.kept_pages
    groups = list(kept) if kept else [(_ZERO_PAGE,) * GROUP] * -(-pages // GROUP)
    view = cpu.ram.view
    number, group = -1, list[bytes]()
    for index in cpu.dirty_pages():
        if index // GROUP != number:
            if group:
                groups[number] = tuple(group)
            number = index // GROUP
            group = list(groups[number])
        page = bytes(view[index * PAGE : (index + 1) * PAGE])
        group[index % GROUP] = _ZERO_PAGE if page == _ZERO_PAGE else page
    if group:
        groups[number] = tuple(group)
    cpu.kept_pages = tuple(groups)
    cpu.forget_dirty()
    return cpu.kept_pages


def restore_ram(cpu: Cpu, wanted: Pages) -> None:
    """Make RAM what it was; translations of pages that change are dropped."""
    changed = cpu.dirty_pages()
    kept = cpu.kept_pages
    if kept:
        dirty = set(changed)
        for number, (want, old) in enumerate(zip(wanted, kept, strict=True)):
            if want is not old:
                pairs = enumerate(zip(want, old, strict=True), number * GROUP)
                dirty.update(index for index, (page, before) in pairs if page is not before)
        changed = sorted(dirty)
    for index in changed:
        cpu.put_page(index, wanted[index // GROUP][index % GROUP])
    cpu.kept_pages = wanted
    cpu.forget_dirty()


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
    return Snapshot(machine.clock.icount, now, save_cpu(machine.cpu), parts, save_ram(machine.cpu))


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
