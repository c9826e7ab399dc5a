"""The saved state of a processor in a form that another process can take, checked when it is read.

What comes back from a file is untrusted: an entry of a TLB that leaves RAM, or an index that leaves
its array, is a `StateError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.core import layout as lay
from workbench.core.engine import PAGE, STATE_FIELDS, Cpu
from workbench.core.snapshot import DATA_TLBS
from workbench.core.state import StateError
from workbench.core.values import bits_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TLBS_BYTES = DATA_TLBS * lay.TLB_BYTES
_BELOW = {"fpu_top": 8, "cpl": 4, "acc_count": lay.ACCESS_SLOTS + 1, "acc_cursor": 9, "cc_op": 28}
"""Fields that the engine takes as an index or a code: values below this."""
_BITS = {
    "eflags": 0x3F7702,  # the arithmetic ones are kept elsewhere
    "seg_attr": 0x1F0FF,
    "gdtr_limit": 0xFFFF,
    "idtr_limit": 0xFFFF,
    "fpu_cw": 0xFFFF,
    "fpu_sw": 0xFFFF,
    "fpu_tag": 0xFF,
    "fpu_op": 0xFFFF,
    "mxcsr": 0xFFFF,  # the host's LDMXCSR faults for others
    "irq_pending": lay.INTR_PENDING | lay.NMI_PENDING,
    "nmi_blocked": 1,
    "dr_hits": 0xF,
}
"""The bits that a field, or each of its elements, can have (SDM volume 3, 2.3 and 25.4.1). Of
registers that are not here the engine looks at some bits, and the others do no harm.
"""
_A20 = {(1 << 64) - 1, (1 << 64) - 1 ^ 1 << 20}


def dump_cpu(cpu: Cpu, data: bytes) -> bytes | None:
    """What `save_cpu` gave, without what lies in dead entries; None if one leaves RAM."""
    entries = _entries(data)
    used = _valid(entries)
    if _outside(entries, used, cpu.ram_bytes):
        return None
    entries[~used.any(axis=1)] = _u64((1 << 64) - 1)
    return data[:-_TLBS_BYTES] + entries.tobytes()


def load_cpu(cpu: Cpu, data: bytes, expected: int, icount: int) -> bytes:
    """The reverse, for `restore_cpu`; it must have `expected` bytes and be at `icount`."""
    if len(data) != expected:
        raise StateError(f"expected {expected:,} bytes of the processor, not {len(data):,}")
    if int.from_bytes(data[:8], "little") != icount:
        raise StateError("the instruction count of the processor is another")
    at = 8
    found: dict[str, int] = {}
    for name in STATE_FIELDS:
        _, ty, count = lay.CPU.fields[name]
        size = bits_of(ty) // 8
        below, bits = _BELOW.get(name, 1 << 8 * size), _BITS.get(name, -1)
        for _ in range(count):
            value = found[name] = int.from_bytes(data[at : at + size], "little")
            if value >= below:
                raise StateError(f"expected {name} below {below:,}, not {value:,}")
            if value & ~bits:
                raise StateError(f"expected {name} to have no bits but {bits:#x}, not {value:#x}")
            at += size
    _check_paging(found["cr0"], found["cr4"], found["efer"])
    if int.from_bytes(data[at : at + 8], "little") not in _A20:
        raise StateError("the mask of the A20 gate is none")
    entries = _entries(data)
    used = _valid(entries)
    if _outside(entries, used, cpu.ram_bytes):
        raise StateError("an entry of a TLB leaves the memory")
    entries[~used.any(axis=1)] = _u64((1 << 64) - 1)
    return data[:-_TLBS_BYTES] + entries.tobytes()


def _check_paging(cr0: int, cr4: int, efer: int) -> None:
    """Only a processor that is broken is in long mode without paging, or pages in real mode."""
    paging = bool(cr0 & lay.CR0_PG)
    long = paging and bool(efer & lay.EFER_LME)
    if paging and not cr0 & lay.CR0_PE:
        raise StateError("expected paging in protected mode alone")
    if long != bool(efer & lay.EFER_LMA) or (long and not cr4 & lay.CR4_PAE):
        raise StateError("expected EFER.LMA as CR0.PG, CR4.PAE and EFER.LME say")


def _u64(value: int) -> np.uint64:
    import numpy as np

    return np.uint64(value)


def _entries(data: bytes) -> NDArray[np.uint64]:
    import numpy as np

    return np.frombuffer(data[-_TLBS_BYTES:], np.uint64).reshape(-1, 4).copy()


def _valid(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the tags count: the third, flags of the page, if one of the others does."""
    used: NDArray[np.bool_] = (entries[:, :3] & _u64(0xFFF & ~lay.MARKS)) == 0
    used[:, 2] = used[:, 0] | used[:, 1]
    return used


def _outside(entries: NDArray[np.uint64], used: NDArray[np.bool_], ram_bytes: int) -> bool:
    places = (entries[:, :3] & _u64((1 << 64) - PAGE)) + entries[:, 3:]
    wrong = (places >= _u64(ram_bytes & ~(PAGE - 1))) | (places & _u64(PAGE - 1) != 0)
    return bool((wrong & used).any())
