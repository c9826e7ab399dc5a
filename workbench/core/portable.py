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
_BELOW = {"fpu_top": 8, "cpl": 4, "acc_count": lay.ACCESS_SLOTS + 1, "acc_cursor": 9}
"""Fields that the engine takes as an index: values below this."""
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
    for name in STATE_FIELDS:
        _, ty, count = lay.CPU.fields[name]
        size = (16 if ty == "x86_fp80" else bits_of(ty) // 8) * count
        value = int.from_bytes(data[at : at + size], "little")
        if value >= _BELOW.get(name, value + 1):
            raise StateError(f"expected {name} below {_BELOW[name]}, not {value:,}")
        at += size
    if int.from_bytes(data[at : at + 8], "little") not in _A20:
        raise StateError("the mask of the A20 gate is none")
    entries = _entries(data)
    used = _valid(entries)
    if _outside(entries, used, cpu.ram_bytes):
        raise StateError("an entry of a TLB leaves the memory")
    entries[~used.any(axis=1)] = _u64((1 << 64) - 1)
    return data[:-_TLBS_BYTES] + entries.tobytes()


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
