"""The processor as Python sees it: memory of the engine, registers, `run`, and exits.

It needs no machine and no device:

    cpu = Cpu(ram_bytes=1 << 20)
    cpu.write_phys(0x1000, bytes.fromhex("b82a00f4"))  # mov ax, 42; hlt
    cpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)  # real mode, code from address 0
    cpu.set("rip", 0x1000)
    print(cpu.run(1000), cpu.get("rax"))  # hlt 42
"""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.core import layout as lay
from workbench.core.build import Image, load_image
from workbench.core.conditions import table_of
from workbench.core.lang import bits_of
from workbench.core.layout import CPU, EXIT_NAMES
from workbench.core.regions.hot import SLICE, Hot
from workbench.core.spans import Spans, pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAP_32BIT, MAP_NORESERVE = 0x40, 0x4000
ARENA_BYTES = 96 << 20
SCRATCH_BYTES = 512 << 10
BLOCK_MAX = 1 << 20
HASH_ENTRIES = 1 << 16
FIXED_INDEX = 128
PAGE = 4096
MANY_SPANS = 4  # from here on the compiled helper is quicker
FOUR_GIB = 1 << 32
MOST_ROM = 16 << 20
A20 = 1 << 20
HOLE, RAM, READ_ONLY = 0, 1, 2  # kinds of pages
TLB_FLUSH_FIELDS = {"cr0", "cr3", "cr4", "efer"}

RunFunction = Callable[[int], int]


class GuestFault(Exception):
    """An exception that a Python handler raises in the guest: vector, error code or None, address
    for #PF.
    """

    def __init__(self, vector: int, error: int | None = None, address: int = 0) -> None:
        super().__init__(f"guest exception {vector}")
        self.vector, self.error, self.address = vector, error, address


class TripleFault(Exception):
    """Neither an exception that a Python handler raised nor a double fault could be delivered."""


class _Buffer:
    """Anonymous memory with a stable address."""

    def __init__(
        self, size: int, flags: int = 0, prot: int = mmap.PROT_READ | mmap.PROT_WRITE
    ) -> None:
        def take() -> mmap.mmap:
            kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE | flags
            return mmap.mmap(-1, size, flags=kind, prot=prot)

        try:
            self.map = take()
        except OSError:  # a dropped machine is a cycle and keeps its memory until it is collected
            gc.collect()
            self.map = take()
        self.size = size
        self.view = memoryview(self.map)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))

    def put(self, at: int, data: bytes) -> None:
        self.view[at : at + len(data)] = data


class Cpu:
    """One x86-64 processor with its RAM (see the module for an example).

    RAM positions are those of the host buffer: guest-physical addresses below `low_bytes`, then
    those
    from 4 GiB on.
    """

    def __init__(
        self, ram_bytes: int, image: Image | None = None, low_limit: int = 0xC0000000
    ) -> None:
        self.image = image or load_image()
        self.ram_bytes = ram_bytes
        self.low_bytes = min(ram_bytes, low_limit)
        self._rom_at = (ram_bytes + PAGE - 1) & -PAGE
        ram_pages, pages = self._rom_at // PAGE, (self._rom_at + MOST_ROM) // PAGE
        self.ram = _Buffer(self._rom_at + MOST_ROM)
        self._cpu = _Buffer(CPU.size)
        self.base = self._cpu.address
        self._q = self._cpu.view.cast("Q")
        self._i = self._cpu.view.cast("I")
        self._h = self._cpu.view.cast("H")
        self._page_attr = _Buffer(max(pages, PAGE))
        self._page_attr.put(0, b"\x01" * ram_pages)
        self._page_code = _Buffer(max(pages * 8, PAGE))
        self._code = self._page_code.view.cast("Q")
        self._page_head = _Buffer(max(pages * 8, PAGE))
        self._page_dirty = _Buffer(max(pages, PAGE))
        self._dirty = self._page_dirty.view
        self.kept_ram: Any = None
        """What RAM was when `forget_dirty` was called last, for who called it; None while that is
        all zero (see pages.py).
        """
        self._blocks = _Buffer(BLOCK_MAX * 64)
        self._hash = _Buffer(HASH_ENTRIES * 4)
        self._arena = _Buffer(
            ARENA_BYTES, MAP_32BIT, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
        self.read_only = (0, 0)
        """Positions between which some pages are read-only for everybody."""
        self.read_only_write: Callable[[int, bytes], None] | None = None
        """Gets (gpa, bytes) of a write by others than the processor to a read-only page."""
        self.skip_advance = False
        self._conditions = b""
        self._points: list[int] = []
        self._point_buffer = _Buffer(PAGE)
        self.handlers: dict[str, Callable[[Any, list[int]], None]] = {}
        self._fields: dict[str, tuple[int, int]] = {}
        for name, (at, ty, _count) in CPU.fields.items():
            self._fields[name] = (at, bits_of(ty) // 8)
        for n, name in enumerate(lay.GPRS):
            self._fields[name] = (CPU.offset("gpr", n), 8)
        self._place()
        self.reset()

    # -- setting up

    def _place(self) -> None:
        image = self.image
        arena = self._arena
        blob_at = arena.address
        arena.put(0, image.blob)
        code_at = (len(image.blob) + 4095) // 4096 * 4096
        # externs through small jumps: they are farther away than 2 GiB
        libc = ctypes.CDLL(None)
        libm = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
        values: list[int] = []
        for kind, value in image.symbols:
            if kind == "blob":
                values.append(blob_at + int(value))
                continue
            f = getattr(libc, str(value), None) or getattr(libm, str(value))
            target = ctypes.cast(f, ctypes.c_void_p).value or 0
            arena.put(code_at, b"\xff\x25\0\0\0\0" + struct.pack("<Q", target))
            values.append(arena.address + code_at)
            code_at += 16
        for at, how, n, addend in image.fixups:
            v = values[n] + addend
            if how == 0:
                struct.pack_into("<i", arena.map, at, v - (blob_at + at))
            elif how == 1:
                struct.pack_into("<I", arena.map, at, v & 0xFFFFFFFF)
            elif how == 2:
                struct.pack_into("<Q", arena.map, at, v & 0xFFFFFFFFFFFFFFFF)
        code_at = (code_at + 4095) // 4096 * 4096
        self._code_start = arena.address + code_at + SCRATCH_BYTES
        self._symbols = _Buffer((FIXED_INDEX + len(values) + 64) * 8)
        self._symbols.put(FIXED_INDEX * 8, struct.pack(f"<{len(values)}Q", *values))
        tables = {}
        for name in ("stencil_code", "stencils", "relocs", "entries", "optable", "eatab"):
            data: bytes = getattr(image, name)
            tables[name] = b = _Buffer(len(data) + PAGE)
            b.put(0, data)
        self._tables = tables
        self._insns = _Buffer(1 << 16)
        self._stubs = _Buffer(1 << 20)
        for field, address in {
            "ram": self.ram.address,
            "bp_table": self._point_buffer.address,
            "ram_low": self.low_bytes,
            "ram_high": self.ram_bytes - self.low_bytes,
            "rom_at": self._rom_at,
            "page_attr": self._page_attr.address,
            "page_code": self._page_code.address,
            "page_head": self._page_head.address,
            "page_dirty": self._page_dirty.address,
            "scratch_code": arena.address + code_at,
            "code_base": self._code_start,
            "code_end": arena.address + ARENA_BYTES,
            "blocks": self._blocks.address,
            "block_max": BLOCK_MAX,
            "block_hash": self._hash.address,
            "symbols": self._symbols.address,
            "insns": self._insns.address,
            "stubs": self._stubs.address,
            **{n: b.address for n, b in tables.items()},
        }.items():
            self.set(field, address)
        functions = image.functions

        def function(name: str, *types: Any) -> Any:
            proto = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *types)
            return proto(blob_at + functions[name])

        self._run: RunFunction = function("run")
        u32, u64 = ctypes.c_uint32, ctypes.c_uint64
        decode = ctypes.CFUNCTYPE(u64, ctypes.c_void_p, u64, u64, u64, u64)
        self.hot = Hot(self, decode(blob_at + functions["decode"]))
        self._deliver = function("deliver", u32, u32, u32, u32)
        self._update_mode = function("update_mode")
        self._tlb_flush_all = function("tlb_flush_all")
        self._wrote_code = function("wrote_code", u64, u64)
        self._walk = function("walk", u64, u32, u32)
        # One that is over before another thread would get the interpreter lock keeps it.
        scatter = ctypes.PYFUNCTYPE(u64, ctypes.c_void_p, u64, u64, u64)
        self._scatter = scatter(blob_at + functions["scatter"])
        self.forget_code()

    def forget_code(self) -> None:
        """Drop every translation."""
        self.set("code_next", self._code_start)
        self.set("block_count", 1)
        self.set("chain_site", 0)
        ctypes.memset(self._hash.address, 0, self._hash.size)
        ctypes.memset(self._page_code.address, 0, self._page_code.size)
        ctypes.memset(self._page_head.address, 0, self._page_head.size)
        self._tlb_flush_all(self.base)

    def reset(self) -> None:
        """State after RESET (SDM volume 3, table 10-1); RAM and translations stay."""
        for name, (at, ty, count) in CPU.fields.items():
            if name in STATE_FIELDS:
                size = (16 if ty == "x86_fp80" else bits_of(ty) // 8) * count
                self._cpu.view[at : at + size] = bytes(size)
        self.set("rip", 0xFFF0)
        self.set("eflags", 2)
        self.set("cr0", 0x60000010)
        self.set("dr", 0xFFFF0FF0, 6)
        self.set("dr", 0x400, 7)
        self.set("rdx", 0x600)
        for n in range(6):
            self.set_segment(lay.SEGMENTS[n], 0, 0, 0xFFFF, 0x93, update=False)
        self.set_segment("cs", 0xF000, 0xFFFF0000, 0xFFFF, 0x9B, update=False)
        self.set_segment("ldtr", 0, 0, 0xFFFF, 0x82, update=False)
        self.set_segment("tr", 0, 0, 0xFFFF, 0x8B, update=False)
        self.set("gdtr_limit", 0xFFFF)
        self.set("idtr_limit", 0xFFFF)
        self.set("mxcsr", 0x1F80)
        self.set("fpu_cw", 0x40)
        self.set("fpu_tag", 0)
        self.set("xcr0", 1)
        self.set("max_insns", 64)
        self.set("a20_mask", 0xFFFFFFFFFFFFFFFF)
        self.set("shadow_icount", 0xFFFFFFFFFFFFFFFF)
        self.set("acc_icount", 0xFFFFFFFFFFFFFFFF)
        for name, value in (("ps_per_insn", 1000), ("tsc_period_ps", 1000)):
            if not self.get(name):
                self.set(name, value)
        self.update_mode()
        self._tlb_flush_all(self.base)
        if self.get("watching") or self.get("dr_code"):
            self.load_debug_registers()

    # -- registers

    def get(self, name: str, index: int = 0) -> int:
        """A register or any field of the CPU structure; "rflags" with the arithmetic flags made
        explicit.
        """
        if name == "rflags":
            return self.get("eflags") & ~lay.ARITH | self.arithmetic_flags()
        at, size = self._fields[name]
        at += index * size
        if size == 8:
            return self._q[at >> 3]
        if size == 4:
            return self._i[at >> 2]
        if size == 2:
            return self._h[at >> 1]
        return int.from_bytes(self._cpu.view[at : at + size], "little")

    def set(self, name: str, value: int, index: int = 0) -> None:
        """Write a register or field (wrapped to its width)."""
        if name == "rflags":
            self.set("eflags", value & ~lay.ARITH | 2)
            self.set("cc_op", 0)
            self.set("cc_src", value & lay.ARITH)
            self.update_mode()
            return
        at, size = self._fields[name]
        at += index * size
        if size == 8:
            self._q[at >> 3] = value & 0xFFFFFFFFFFFFFFFF
        elif size == 4:
            self._i[at >> 2] = value & 0xFFFFFFFF
        elif size == 2:
            self._h[at >> 1] = value & 0xFFFF
        else:
            self._cpu.view[at : at + size] = (value & ((1 << (size * 8)) - 1)).to_bytes(
                size, "little"
            )
        if name in TLB_FLUSH_FIELDS:
            self._tlb_flush_all(self.base)
            self.update_mode()

    def set_segment(
        self, name: str, selector: int, base: int, limit: int, attr: int, update: bool = True
    ) -> None:
        """Load a segment register's visible and hidden parts; attr as VMCS access rights."""
        n = lay.SEGMENTS.index(name)
        self.set("seg_sel", selector, n)
        self.set("seg_base", base, n)
        self.set("seg_limit", limit, n)
        self.set("seg_attr", attr, n)
        if update:
            self.update_mode()

    @property
    def fpu_status(self) -> int:
        """The x87 status word, with TOP in bits 11 to 13."""
        return self.get("fpu_sw") & ~0x3800 | (self.get("fpu_top") & 7) << 11

    @property
    def linear_pc(self) -> int:
        """The linear address of the next instruction; in 64-bit mode CS has no base."""
        pc = self.get("rip")
        if self.get("efer") & lay.EFER_LMA and self.get("seg_attr", lay.CS) & lay.ATTR_L:
            return pc
        return pc + self.get("seg_base", lay.CS) & 0xFFFF_FFFF

    def get_segment(self, name: str) -> tuple[int, int, int, int]:
        """(selector, base, limit, attr)."""
        n = lay.SEGMENTS.index(name)
        return (
            self.get("seg_sel", n),
            self.get("seg_base", n),
            self.get("seg_limit", n),
            self.get("seg_attr", n),
        )

    def update_mode(self) -> None:
        """Work out privilege, block mode and TLB after registers were changed from outside."""
        self._update_mode(self.base)

    def arithmetic_flags(self) -> int:
        """CF PF AF ZF SF OF from the lazy state."""
        op, dst, src = self.get("cc_op"), self.get("cc_dst"), self.get("cc_src")
        kind, bits = op >> 2, 8 << (op & 3)
        mask = (1 << bits) - 1
        if kind == lay.CC_EFLAGS:
            return src & lay.ARITH
        r, top = dst & mask, 1 << (bits - 1)
        szp = (
            (lay.ZF if r == 0 else 0)
            | (lay.SF if r & top else 0)
            | (lay.PF if bin(r & 0xFF).count("1") % 2 == 0 else 0)
        )
        if kind == lay.CC_LOGIC:
            return szp
        if kind == lay.CC_EXPL:
            return szp | (src & (lay.CF | lay.AF | lay.OF))
        if kind in (lay.CC_INC, lay.CC_DEC):
            inc = kind == lay.CC_INC
            af = lay.AF if (r & 15) == (0 if inc else 15) else 0
            return szp | (src & 1) | af | (lay.OF if r == (top if inc else top - 1) else 0)
        b = src & mask
        a = (r - b if kind == lay.CC_ADD else r + b) & mask
        cf = r < b if kind == lay.CC_ADD else a < b
        of = (r ^ a) & (r ^ b) & top if kind == lay.CC_ADD else (a ^ b) & (a ^ r) & top
        return szp | (1 if cf else 0) | ((a ^ b ^ r) & lay.AF) | (lay.OF if of else 0)

    @property
    def icount(self) -> int:
        """Retired instructions."""
        return (self._q[_END] - self._q[_BUDGET]) & 0xFFFFFFFFFFFFFFFF

    # -- memory

    def position(self, gpa: int) -> int | None:
        """Where a guest-physical address is in the RAM buffer, or None."""
        if gpa < self.low_bytes:
            return gpa
        if FOUR_GIB <= gpa < FOUR_GIB + self.ram_bytes - self.low_bytes:
            return gpa - FOUR_GIB + self.low_bytes
        if 0 <= gpa - self.get("rom_base") < self.get("rom_bytes"):
            return gpa - self.get("rom_base") + self._rom_at
        return None

    def read_phys(self, gpa: int, n: int) -> bytes:
        """Bytes of guest RAM; reading outside of it gives 0xFF."""
        if gpa + n <= self.low_bytes:
            return bytes(self.ram.view[gpa : gpa + n])
        at = self.position(gpa)
        if at is not None and at + n <= (self.low_bytes if gpa < FOUR_GIB else self.ram_bytes):
            return bytes(self.ram.view[at : at + n])
        return b"".join(
            b"\xff" * length if p is None else bytes(self.ram.view[p : p + length])
            for _, length, p in self._spans(gpa, n)
        )

    def write_phys(self, gpa: int, data: bytes) -> None:
        """Write guest RAM; what falls outside, or on read-only pages, is dropped.  Translations of
        what is written are dropped too.
        """
        n = len(data)
        if n and gpa + n <= self.low_bytes and gpa >= self.read_only[1]:
            self._write(gpa, data)
            return
        at = self.position(gpa)
        if at is None or at + n > (self.low_bytes if gpa < FOUR_GIB else self.ram_bytes):
            for offset, length, p in self._spans(gpa, n):
                if p is not None and p < self.ram_bytes:
                    self.write_phys(gpa + offset, data[offset : offset + length])
            return
        low, high = self.read_only
        if at < high and at + n > low:
            self._write_unless_read_only(at, data)
        else:
            self._write(at, data)

    def _write_unless_read_only(self, at: int, data: bytes) -> None:
        while data:
            piece = data[: PAGE - at % PAGE]
            if self._page_attr.view[at // PAGE] != READ_ONLY:
                self._write(at, piece)
            elif self.read_only_write is not None:
                self.read_only_write(at, piece)
            at += len(piece)
            data = data[len(piece) :]

    def _spans(self, gpa: int, n: int) -> Iterator[tuple[int, int, int | None]]:
        """(offset, bytes, position or None) of the parts of a range that are RAM or are not."""
        above = FOUR_GIB + self.ram_bytes - self.low_bytes
        ends = (self.low_bytes, self.get("rom_base"), FOUR_GIB, above)
        at = gpa
        while at < gpa + n:
            stop = min((end for end in ends if end > at), default=gpa + n)
            length = min(stop, gpa + n) - at
            yield at - gpa, length, self.position(at)
            at += length

    @property
    def state_view(self) -> memoryview:
        """The CPU structure itself, for snapshots."""
        return self._cpu.view

    def flush_translations(self) -> None:
        """Empty the TLBs and the jump cache; translated code stays."""
        self._tlb_flush_all(self.base)

    def set_conditions(
        self, conditions: Mapping[int, Sequence[bytes]], registers: Sequence[str]
    ) -> None:
        """Let breakpoints, which are set, count only when one of their agent expressions holds.

        `registers` are the names of 64-bit fields by the number that the expressions use.
        """
        table = table_of(self._points, conditions) if conditions else b""
        for n in range(lay.COND_REGISTERS):
            name = registers[n] if n < len(registers) else ""
            self.set("cond_reg", self._fields[name][0] + 1 if name else 0, n)
        if table != self._conditions:
            self._conditions = table
            self._cond_buffer = _Buffer(max(len(table), PAGE))
            self._cond_buffer.put(0, table)
            self.set("cond_table", self._cond_buffer.address if table else 0)

    def set_breakpoints(self, addresses: list[int]) -> None:
        """Stop with "breakpoint" before the instructions at these linear addresses.

        The set is read by the translator: blocks end before a breakpoint, and none begins at one.
        """
        if len(addresses) > lay.MAX_BREAKPOINTS:
            raise ValueError(f"expected at most {lay.MAX_BREAKPOINTS} breakpoints")
        new = sorted(addresses)
        if new == self._points:
            return
        self._points, data = new, struct.pack(f"<{len(new)}Q", *new)
        if len(data) > self._point_buffer.size:
            self._point_buffer = _Buffer(2 * len(data))
            self.set("bp_table", self._point_buffer.address)
        self._point_buffer.put(0, data)
        self.set("bp_count", len(new))
        self.set_conditions({}, ())
        self.forget_blocks()

    def set_watches(self, ranges: list[tuple[int, int, int]]) -> None:
        """Stop with "watch" after an access to a linear address in one of the ranges
        (first, behind the last, WATCH_READ | WATCH_WRITE).
        """
        if len(ranges) > lay.MAX_WATCHES:
            raise ValueError(f"expected at most {lay.MAX_WATCHES} watched ranges")
        for n, (low, high, kind) in enumerate(ranges):
            self.set("watch_lo", low, n)
            self.set("watch_hi", high, n)
            self.set("watch_kind", kind, n)
        self.set("watch_count", len(ranges))
        self.set("watch_pending", 0)
        self._set_watching()
        self.mark_watched()

    def load_debug_registers(self) -> None:
        """DR0 to DR3 and DR7 have changed: what they watch (SDM volume 3, 17.2.4 and 17.2.5).

        Breakpoints on I/O ports are not modelled.
        """
        dr7, code = self.get("dr", 7), False
        for n in range(4):
            on, what = dr7 >> (2 * n) & 3, dr7 >> (16 + 4 * n) & 3
            size = (1, 2, 8, 4)[dr7 >> (18 + 4 * n) & 3]
            kind = {1: lay.WATCH_WRITE, 3: lay.WATCH_READ | lay.WATCH_WRITE}.get(what, 0)
            low = self.get("dr", n) & -size
            slot = lay.MAX_WATCHES + n
            self.set("watch_lo", low, slot)
            self.set("watch_hi", low + size, slot)
            self.set("watch_kind", kind if on else 0, slot)
            code = code or bool(on and what == 0)
        self.set("dr_code", int(code))
        self._set_watching()
        self.mark_watched()

    def _guest_slots(self) -> list[int]:
        slots = range(lay.MAX_WATCHES, lay.MAX_WATCHES + 4)
        return [n for n in slots if self.get("watch_kind", n)]

    def _set_watching(self) -> None:
        self.set("watching", int(bool(self.get("watch_count") or self._guest_slots())))

    def mark_watched(self) -> None:
        """Give the entries of the data TLBs the mark of watched pages; what they map stays."""
        import numpy as np

        at = CPU.offset("tlbs")
        tlbs = np.frombuffer(self._cpu.map, np.uint64, 3 * lay.TLB_BYTES // 8, at).reshape(-1, 4)
        tags = tlbs[:, :2]
        used = tags & np.uint64(0xFFF & ~lay.MARKS) == 0
        tags[used] &= ~np.uint64(lay.WATCHED)
        bare = tags & ~np.uint64(lay.MARKS)
        for n in [*range(self.get("watch_count")), *self._guest_slots()]:
            low = np.uint64(self.get("watch_lo", n) & ~(PAGE - 1))
            high = np.uint64((self.get("watch_hi", n) - 1) & (1 << 64) - PAGE)
            tags[used & (bare >= low) & (bare <= high)] |= np.uint64(lay.WATCHED)

    def forget_blocks(self) -> None:
        """Drop every translation and leave the data TLBs as they are: the guest cannot tell."""
        at, n = CPU.offset("tlbs"), 3 * lay.TLB_BYTES
        kept = bytes(self._cpu.view[at : at + n])
        self.forget_code()
        self._cpu.view[at : at + n] = kept

    def hold_writes(self) -> None:
        """Mark the data TLBs: the next write to a page is noted, and its code dropped."""
        import numpy as np

        at = CPU.offset("tlbs")
        tlbs = np.frombuffer(self._cpu.map, np.uint64, 3 * lay.TLB_BYTES // 8, at).reshape(-1, 4)
        tags = tlbs[:, 1]
        tags[tags & np.uint64(0xFFF & ~lay.MARKS) == 0] |= np.uint64(lay.HELD)

    def dirty_pages(self) -> NDArray[np.int64]:
        """RAM pages that may have been written since `forget_dirty` or the start, in order."""
        import numpy as np

        pages = -(-self.ram_bytes // PAGE)
        return np.flatnonzero(np.frombuffer(self._page_dirty.map, np.uint8, pages))

    def count_dirty(self) -> int:
        """How many pages `dirty_pages` gives."""
        import numpy as np

        pages = -(-self.ram_bytes // PAGE)
        return int(np.count_nonzero(np.frombuffer(self._page_dirty.map, np.bool_, pages)))

    def note_dirty(self, pages: list[int]) -> None:
        """Count RAM pages as written."""
        import numpy as np

        np.frombuffer(self._page_dirty.map, np.uint8)[pages] = 1

    def forget_dirty(self) -> None:
        """From now on the pages that are written are noted anew."""
        ctypes.memset(self._page_dirty.address, 0, self._page_dirty.size)
        self.hold_writes()

    def put_pages(self, pages: NDArray[np.int64], rows: NDArray[np.uint64]) -> None:
        """Write whole RAM pages; translations of those that change are dropped."""
        import numpy as np

        ram = np.frombuffer(self.ram.map, np.uint64).reshape(-1, PAGE // 8)
        code = np.frombuffer(self._page_code.map, np.uint64)[pages] != 0
        for n in np.flatnonzero(code).tolist():
            index = int(pages[n])
            if not np.array_equal(ram[index], rows[n]):
                self._wrote_code(self.base, self.ram.address + index * PAGE, PAGE)
        ram[pages] = rows

    def scatter(self, spans: Spans, data: bytes | memoryview) -> None:
        """Write data into spans of guest memory, one after the other: a transfer by DMA."""
        count = len(spans) // 2
        done = at = 0
        if count >= MANY_SPANS:
            import numpy as np

            source = np.frombuffer(data, np.uint8)
            assert source.size >= sum(spans[1::2])
            start: int = source.__array_interface__["data"][0]
            spans_at = spans.buffer_info()[0]
            while done < count:
                done += self._scatter(self.base, spans_at + 16 * done, count - done, start + at)
                at = sum(spans[1 : 2 * done : 2])
                if done < count:  # what is not ordinary RAM
                    self.write_phys(spans[2 * done], bytes(data[at : at + spans[2 * done + 1]]))
                    at += spans[2 * done + 1]
                    done += 1
            return
        for gpa, length in pairs(spans):
            self.write_phys(gpa, bytes(data[at : at + length]))
            at += length

    def overwrite(self, at: int, data: bytes) -> None:
        """Write at a position of the RAM buffer, read-only or not."""
        self._write(at, data)

    def _write(self, at: int, data: bytes) -> None:
        end = at + len(data)
        self.ram.view[at:end] = data
        page = at // PAGE
        if end > (page + 1) * PAGE or self._code[page]:
            self._written(at, len(data))
        elif data:
            self._dirty[page] = 1

    def _written(self, at: int, length: int) -> None:
        """Note the pages that were written, and drop the translations of what was."""
        code, dirty = self._code, self._dirty
        end = at + length
        while at < end:
            step = min(end, (at // PAGE + 1) * PAGE) - at
            dirty[at // PAGE] = 1
            if code[at // PAGE]:
                self._wrote_code(self.base, self.ram.address + at, step)
            at += step

    def set_page_kind(self, gpa: int, n: int, kind: int) -> None:
        """Make RAM pages ordinary, read-only or a hole for devices."""
        first = self.position(gpa)
        if first is not None:
            self._page_attr.put(first // PAGE, bytes([kind]) * (n // PAGE))
            self._tlb_flush_all(self.base)
            if kind == READ_ONLY:
                low, high = self.read_only
                self.read_only = (min(low, first) if high else first, max(high, first + n))

    def map_rom(self, data: bytes) -> None:
        """Show `data`, whole pages, read-only at the end of the first 4 GiB."""
        n = len(data)
        if not n or n % PAGE or n > MOST_ROM:
            raise ValueError(f"expected a ROM of whole pages up to {MOST_ROM} bytes, not {n}")
        self.set("rom_base", FOUR_GIB - n)
        self.set("rom_bytes", n)
        self._write(self._rom_at, data)
        self._page_attr.put(self._rom_at // PAGE, bytes([READ_ONLY]) * (n // PAGE))
        self._tlb_flush_all(self.base)

    def show_rom(self, gpa: int, n: int, shown: bool) -> None:
        """Whether whole pages of the ROM are read there, or left to devices."""
        at = self.position(gpa)
        assert at is not None
        first, count = at // PAGE, n // PAGE
        self._page_attr.put(first, bytes([READ_ONLY if shown else HOLE]) * count)
        for page in range(first, first + count):
            if self._code[page]:
                self._wrote_code(self.base, self.ram.address + page * PAGE, PAGE)
        self._tlb_flush_all(self.base)

    def set_a20(self, is_open: bool) -> None:
        """The A20M# pin: closed, bit 20 of every physical address of the processor reads as 0."""
        self.set("a20_mask", 0xFFFFFFFFFFFFFFFF if is_open else ~A20)
        self._tlb_flush_all(self.base)

    def translate_linear(self, addr: int, access: int = 0, mmu: int | None = None) -> int:
        """Guest-physical address; GuestFault if the access is not allowed."""
        if mmu is None:
            mmu = lay.MMU_USER if self.get("cpl") == 3 else lay.MMU_KERNEL
        if not self._walk(self.base, addr, access, mmu):
            raise GuestFault(self.get("exc_vector"), self.get("exc_error"), self.get("fault_addr"))
        return self.get("walk_page") | (addr & 0xFFF)

    def read_linear(self, addr: int, n: int, mmu: int | None = None) -> bytes:
        """Bytes at a linear address; GuestFault for a page fault."""
        out = b""
        while n:
            step = min(n, PAGE - (addr & 0xFFF))
            out += self.read_phys(self.translate_linear(addr, 0, mmu), step)
            addr += step
            n -= step
        return out

    def write_linear(self, addr: int, data: bytes, mmu: int | None = None) -> None:
        """Write at a linear address; GuestFault before anything is written if a page is not
        writable.
        """
        pieces = []
        while data:
            step = min(len(data), PAGE - (addr & 0xFFF))
            pieces.append((self.translate_linear(addr, 1, mmu), data[:step]))
            addr += step
            data = data[step:]
        for gpa, piece in pieces:
            self.write_phys(gpa, piece)

    def raise_exception(self, vector: int, error: int | None = None) -> None:
        """For handlers: raise an exception on the current instruction."""
        raise GuestFault(vector, error)

    # -- running

    def run(self, until_icount: int) -> str:
        """Run to the exact instruction count, or to an exit; the reason (see layout.EXIT_NAMES)."""
        return EXIT_NAMES[self.enter(until_icount)]

    def enter(self, until_icount: int) -> int:
        """As `run`, with the reason as a number."""
        q = self._q
        while True:
            now = q[_END] - q[_BUDGET]
            end = until_icount if until_icount - now <= SLICE else now + SLICE
            q[_END] = end
            q[_BUDGET] = (end - now) & 0xFFFFFFFFFFFFFFFF
            reason = self._run(self.base)
            if reason == lay.EXIT_BUDGET:
                self.hot.sample()
                if end == until_icount:
                    return reason
            elif reason != lay.EXIT_CODE_FULL:
                return reason
            else:
                self.forget_code()

    def retire(self, n: int = 1) -> None:
        """Count instructions that Python executed."""
        self._q[_BUDGET] = (self._q[_BUDGET] - n) & 0xFFFFFFFFFFFFFFFF

    def system(self) -> str:
        """Execute the instruction of a "system" exit by its Python handler; its name.

        Raises `TripleFault`.
        """
        name = self.image.system_names[self.get("exit_insn")]
        self.skip_advance = False
        at = CPU.offset("exit_info") >> 3
        info = list(self._q[at : at + 6])
        next_pc = self.get("exit_next")
        stepping = self.get("eflags") & lay.TF
        try:
            self.handlers[name](self, info)
        except GuestFault as fault:
            self.deliver_fault(fault)
            return name
        if not self.skip_advance:
            self.set("rip", next_pc)
        self.retire()
        if stepping:
            self.set("dr", self.get("dr", 6) & ~0xF | lay.DR6_BS, 6)
            self.deliver_fault(GuestFault(lay.DB))
        return name

    def deliver_fault(self, fault: GuestFault) -> None:
        """Deliver an exception that a handler raised; raises `TripleFault`."""
        self.set("fault_addr", fault.address)
        if not self.deliver(fault.vector, fault.error, 1):
            raise TripleFault

    def deliver(self, vector: int, error: int | None, kind: int) -> bool:
        """Deliver an exception (kind 1) or interrupt (0); False means triple fault."""
        return bool(self._deliver(self.base, vector, error or 0, 0 if error is None else 1, kind))

    def access_result(self, value: int) -> None:
        """A device access of the current instruction was made (read: its value); `run` goes on with
        it.
        """
        n = self._i[_ACC_COUNT]
        self._q[_ACC_VALUE + n] = value & 0xFFFFFFFFFFFFFFFF
        self._i[_ACC_COUNT] = n + 1
        self._i[_ACC_CURSOR] = 0

    @property
    def exit_info(self) -> list[int]:
        """The numbers that go with the last exit."""
        at = CPU.offset("exit_info") >> 3
        return list(self._q[at : at + 6])


_END = CPU.offset("end_icount") >> 3
_BUDGET = CPU.offset("budget") >> 3
_ACC_VALUE = CPU.offset("acc_value") >> 3
_ACC_COUNT, _ACC_CURSOR = CPU.offset("acc_count") >> 2, CPU.offset("acc_cursor") >> 2
# Architectural state: what RESET clears, a snapshot holds and a digest covers.
STATE_FIELDS = (
    "gpr",
    "rip",
    "cc_dst",
    "cc_src",
    "cc_op",
    "eflags",
    "cpl",
    "seg_base",
    "seg_limit",
    "seg_attr",
    "seg_sel",
    "gdtr_base",
    "idtr_base",
    "gdtr_limit",
    "idtr_limit",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "cr8",
    "efer",
    "dr",
    "xcr0",
    "star",
    "lstar",
    "cstar",
    "sfmask",
    "kernel_gs_base",
    "tsc_aux",
    "sysenter_cs",
    "sysenter_esp",
    "sysenter_eip",
    "tsc_offset",
    "rand_state",
    "shadow_icount",
    "acc_icount",
    "acc_count",
    "acc_cursor",
    "acc_value",
    "fpr",
    "fpu_cw",
    "fpu_sw",
    "fpu_top",
    "fpu_tag",
    "fpu_ip",
    "fpu_dp",
    "fpu_op",
    "mxcsr",
    "xmm",
    "irq_pending",
    "nmi_blocked",
    "dr_hits",
)
