"""Transfers by DMA into guest memory, compiled: a disk's request has a hundred spans."""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.lang import fn, intrinsic, load, pointer, u64
from workbench.core.layout import CPU

RAM = 1  # kind of a page in `page_attr`


@fn("ptr", "i64", "i64", "i64", ret="i64")
def scatter(base: Any, spans: Any, count: Any, data: Any) -> Any:
    """Write host bytes from `data` on to `count` spans, pairs of 64-bit (gpa, bytes), one after the
    other; how many were written. It stops at the first that is empty or not ordinary RAM below
    4 GiB, for Python to write.
    """
    cpu = CPU.view(base)
    done = u64(0)
    while done < count:
        gpa = load(spans + done * 16, "i64")
        size = load(spans + done * 16 + 8, "i64")
        if (gpa >= cpu.ram_low) | (size - 1 >= cpu.ram_low - gpa):
            return done
        end = gpa + size
        page = gpa >> 12
        while page << 12 < end:
            if load(cpu.page_attr + page, "i8") != RAM:
                return done
            page += 1
        at = gpa
        while at < end:
            stop = (at | 0xFFF) + 1
            if stop > end:
                stop = end
            mmu.note_dirty(cpu, at >> 12)
            mmu.wrote_code(base, cpu.ram + at, stop - at)
            at = stop
        intrinsic("memcpy", "ptr", pointer(cpu.ram + gpa), pointer(data), size)
        data += size
        done += 1
    return done
