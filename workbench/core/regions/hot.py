"""Finds loops in which a guest spends its time, and puts compiled regions in place of them.

The processor runs in slices; where one ends is a sample. A page with several samples is looked at:
a loop of direct jumps within it is decoded, compiled by another process (`worker.py`), and its
first block becomes a jump to the result. The compiler depends on the host's time, what the guest
does never depends on it (see `text.py`). A region goes with its first block, when a byte that
either was made of is written.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench import cache
from workbench.core import layout as lay
from workbench.core.decode import INSN, TOO_LONG
from workbench.core.layout import CPU
from workbench.core.regions.compiled import Compiled, name_of, unpack
from workbench.core.regions.shape import (
    BASE,
    BRANCHES,
    Block,
    Insn,
    blocks_of,
    chain_target,
    circle,
)

if TYPE_CHECKING:
    from workbench.core.engine import Cpu

SLICE = 1_000_000
ENOUGH = 4  # samples of a page until its loops are looked for in the cache
PATIENCE = 32  # and until they are compiled, which takes about as long as these have taken
FORGET = 4096  # samples after which all counts start again
MOST_INSNS = 300
MOST_ATTEMPTS = 12  # for a page, until the counts start again
MOST_WAITING = 4
MOST_PRESENT = 4096
PIPE_BYTES = 1 << 20  # more than so many requests have
PAGE = 4096
_RECORD = struct.Struct(f"<{INSN.size // 8}Q")
_FIELD = {name: at // 8 for name, (at, _ty, _count) in INSN.fields.items()}
_NONE = 0xFFFFFFFF


def enabled() -> bool:
    """Are regions compiled at all?  Not with WORKBENCH_REGIONS=0, nor on a single processor."""
    wanted = os.environ.get("WORKBENCH_REGIONS", "")
    return wanted != "0" and (bool(wanted) or len(os.sched_getaffinity(0)) > 1)


class Compiler:
    """The other process, started when there is something to compile."""

    def __init__(self) -> None:
        import subprocess

        # -P: what lies in the current directory is no module of ours, unless it was one before.
        command = [
            sys.executable,
            "-P",
            "-c",
            "from workbench.core.regions.worker import main; main()",
        ]
        debug = os.environ.get("WORKBENCH_REGIONS") == "debug"
        self.pid = os.getpid()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debug else subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C on the terminal is not for it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        with contextlib.suppress(OSError, AttributeError):  # the guest never waits for the compiler
            fcntl.fcntl(self.process.stdin.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.number = 0
        self.got = b""
        self.answers: dict[int, tuple[str, Compiled | None]] = {}
        atexit.register(self.close)

    def ask(self, name: str, blocks: list[Block]) -> int:
        """Have a region compiled; the number of the answer."""
        import pickle

        self.number += 1
        data = pickle.dumps((self.number, name, blocks))
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack("<I", len(data)) + data)
        self.process.stdin.flush()
        return self.number

    def poll(self) -> None:
        """Take what is there of answers."""
        import pickle

        assert self.process.stdout is not None
        try:
            more = os.read(self.process.stdout.fileno(), 1 << 20)
        except BlockingIOError:
            return
        if not more:
            raise OSError("the compiler of regions has ended")
        self.got += more
        while len(self.got) >= 4:
            size = struct.unpack_from("<I", self.got)[0]
            if len(self.got) < 4 + size:
                return
            number, name, answer = pickle.loads(self.got[4 : 4 + size])  # noqa: S301 (from our own process)
            self.got = self.got[4 + size :]
            self.answers[number] = name, answer

    def close(self) -> None:
        """Ask for nothing more; the process ends when what it has begun is in the cache."""
        if self.pid == os.getpid():
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self.process.returncode = self.process.poll() or 0


class _Shared:
    """One compiler serves all processors of this process."""

    compiler: Compiler | None = None
    failed = False


def compiler() -> Compiler | None:
    """The compiler of this process; None where there can be none."""
    one = _Shared.compiler
    if one is None or one.pid != os.getpid():
        if _Shared.failed:
            return None
        try:
            one = _Shared.compiler = Compiler()
        except OSError:
            _Shared.failed = True
            return None
    return one


@dataclass(slots=True)
class _Wanted:
    """A region on its way: where it will be, and the bytes that it is made of."""

    base: int  # address of the page
    pc: int  # in it
    mode: int
    page: int  # of RAM
    spans: list[tuple[int, int]]  # offsets in the page
    code: bytes


class Hot:
    """What is known of hot code of one processor."""

    def __init__(self, cpu: Cpu, decode: Any) -> None:
        self.cpu = cpu
        self.decode = decode
        self.counts: dict[tuple[int, int], int] = {}
        self.attempts: dict[int, int] = {}
        self.total = 0
        self.present: dict[tuple[int, int, int], list[_Wanted]] = {}
        """What was installed last, by page."""
        self.wanted: dict[int, _Wanted] = {}
        self.asked: set[str] = set()
        """Names of what is being compiled, and of what cannot be."""
        self.failed = not enabled()
        self.installed = 0

    def sample(self) -> None:
        """The processor stands somewhere: is it a hot place?"""
        if self.failed:
            return
        cpu = self.cpu
        mode = cpu.get("mode")
        if mode & 3 != 2 or cpu.get("bp_count") or cpu.get("max_insns") != 64:
            return
        if self.wanted:
            self._collect()
        self.total += 1
        if self.total % FORGET == 0:
            self.counts.clear()
            if len(self.present) > MOST_PRESENT:
                self.present.clear()
            self.attempts.clear()
        pc = cpu.get("rip")
        key = pc >> 12, mode
        count = self.counts[key] = self.counts.get(key, 0) + 1
        if count != ENOUGH and count < PATIENCE:
            return
        page = self._ram_page(pc)
        if page is None:
            return
        if count < PATIENCE:
            self._look(pc, mode, page, False)
        elif len(self.wanted) < MOST_WAITING:
            self.counts[key] = 0
            tried = self.attempts[page] = self.attempts.get(page, 0) + 1
            if tried <= MOST_ATTEMPTS:
                self._look(pc, mode, page, True)

    # -- finding

    def _ram_page(self, pc: int) -> int | None:
        """The RAM page of an instruction, out of the TLB: a walk could be seen."""
        cpu = self.cpu
        kind = lay.MMU_FETCH_USER if cpu.get("cpl") == 3 else lay.MMU_FETCH_KERNEL
        entry = kind * lay.TLB_BYTES + ((pc >> 12) % lay.TLB_ENTRIES) * lay.TLB_ENTRY
        at = CPU.offset("tlbs") + entry
        tag, by = struct.unpack_from("<QQ", cpu.state_view, at + 16)
        if tag & ~6 & (1 << 64) - 1 != (pc & -PAGE | 1) & (1 << 64) - 1:
            return None
        page = ((pc & -PAGE) + by - cpu.ram.address & (1 << 64) - 1) >> 12
        return page if page < cpu.ram_bytes >> 12 else None

    def _look(self, pc: int, mode: int, page: int, compiling: bool) -> None:
        """Install a region for the loop around `pc`, or ask for one if `compiling`."""
        base = pc & -PAGE
        if any(self._covers(other, pc) for other in self.present.get((page, base, mode), ())):
            return
        blocks = self._loop(pc & PAGE - 1, page)
        if blocks is None or (block := self._block(base + blocks[0].pc, mode, page)) is None:
            return
        if self._has_region(block):
            return
        spans = [(b.pc, b.insns[-1].next - b.pc) for b in blocks]
        code = b"".join(self._bytes(page, at, size) for at, size in spans)
        wanted = _Wanted(base, blocks[0].pc, mode, page, spans, code)
        name = name_of(blocks)
        if name in self.asked:
            return
        kept = cache.fetch(name)
        if kept is not None and (compiled := unpack(kept)) is not None:
            self._install(wanted, compiled)
            return
        if not compiling:
            return
        one = compiler()
        try:
            if one is None:
                raise OSError("no compiler")
            self.wanted[one.ask(name, blocks)] = wanted
            self.asked.add(name)  # it is in the cache the next time, or cannot be compiled
        except OSError:
            self.failed = True

    def _covers(self, there: _Wanted, pc: int) -> bool:
        """Is the instruction at `pc` in a region that is still there?"""
        if not any(at <= pc - there.base < at + size for at, size in there.spans):
            return False
        block = self._block(there.base + there.pc, there.mode, there.page)
        return block is not None and self._has_region(block)

    def _bytes(self, page: int, at: int, size: int) -> bytes:
        start = page * PAGE + at
        return bytes(self.cpu.ram.view[start : start + size])

    def _loop(self, pc: int, page: int) -> list[Block] | None:
        """The blocks of a loop around `pc`, or one that it leads into; that at its head first."""
        found = self._reach(pc, page)
        heads = [(i.target, i.pc) for i in found.values() if i.ends and i.target <= i.pc]
        around = [(end - head, head) for head, end in heads if head <= pc <= end]
        ahead = [(end - head, head) for head, end in heads]
        for _, head in sorted(around) + sorted(ahead):
            if head in found:
                region = self._reach(head, page)
                if any(i.ends and i.target == head for i in region.values()):
                    return circle(blocks_of(head, region))
        return None

    def _reach(self, pc: int, page: int) -> dict[int, Insn]:
        """The instructions that direct jumps lead to from `pc` within the page."""
        found: dict[int, Insn] = {}
        to_do = [pc]
        while to_do and len(found) < MOST_INSNS:
            at = to_do.pop(0)
            while at not in found and 0 <= at < PAGE and len(found) < MOST_INSNS:
                insn = self._decoded(at, page)
                if insn is None or not insn.supported():
                    break
                found[at] = insn
                if insn.ends:
                    to_do.append(insn.target)
                    if insn.op == "jmp":
                        break
                at = insn.next
        return found

    def _decoded(self, pc: int, page: int) -> Insn | None:
        cpu = self.cpu
        record = cpu.get("insns")
        host = cpu.ram.address + page * PAGE + pc
        length = self.decode(cpu.base, host, PAGE - pc, pc, record)
        if length == 0 or length == TOO_LONG or length >= 16:
            return None
        f = _RECORD.unpack(ctypes.string_at(record, _RECORD.size))
        entry = f[_FIELD["entry"]] - cpu.get("entries")
        number = struct.unpack_from("<i", cpu.image.entries, entry)[0]
        name = _parsed(cpu.image.names[number])
        if name is None:
            return None
        op, form, size = name
        holes = {f"OP{n}": f[_FIELD["op"] + n] for n in range(4)}
        segment = f[_FIELD["segment"]] & 7
        for hole, key in (
            ("IMM", "imm"), ("LENGTH", "asize"), ("RM", "rm"), ("TARGET", "target"),
            ("BASE", "base"), ("INDEX", "index"), ("DISP", "disp"),
        ):  # fmt: skip
            holes[hole] = f[_FIELD[key]]
        holes["SEGNO"] = segment
        return Insn(
            pc=pc,
            next=f[_FIELD["next"]],
            op=op,
            form=form,
            size=size,
            cond=f[_FIELD["cond"]],
            ea=f[_FIELD["ea"]],
            segment=segment,
            nop=bool(f[_FIELD["nop"]]),
            target=_signed(f[_FIELD["target"]]) if op in BRANCHES else 0,
            holes=holes,
        )

    # -- installing

    def _block(self, pc: int, mode: int, page: int) -> int | None:
        """Where the record of the translated block at `pc` is, in the list of its page."""
        cpu = self.cpu
        n = struct.unpack_from("<Q", cpu._page_head.view, page * 8)[0]
        while n:
            at = (n >> 1) * 64
            record = struct.unpack_from("<5QIIII", cpu._blocks.view, at)
            position = page * PAGE + (pc & PAGE - 1)
            if record[1:4] == (position, pc, mode) and record[6] == _NONE:
                return int(at)
            n = record[7 + (n & 1)]
        return None

    def _has_region(self, block: int) -> bool:
        code = struct.unpack_from("<Q", self.cpu._blocks.view, block + 32)[0]
        return ctypes.string_at(code, 1) == b"\xe9"

    def _collect(self) -> None:
        """Install what has been compiled."""
        one = _Shared.compiler
        try:
            if one is None or one.pid != os.getpid():
                raise OSError("no compiler")
            one.poll()
        except OSError:
            self.failed = True
            self.wanted.clear()
            return
        for number in [n for n in self.wanted if n in one.answers]:
            wanted = self.wanted.pop(number)
            name, answer = one.answers.pop(number)
            if answer is not None:
                self.asked.discard(name)
            self._install(wanted, answer)

    def _install(self, wanted: _Wanted, compiled: Compiled | None) -> None:
        """Put a region in place of its first block, if that is still there."""
        if compiled is None:
            return
        cpu = self.cpu
        code = b"".join(self._bytes(wanted.page, at, size) for at, size in wanted.spans)
        block = self._block(wanted.base + wanted.pc, wanted.mode, wanted.page)
        if code != wanted.code or block is None or self._has_region(block):
            return
        arena = cpu._arena
        start = cpu.get("code_next") - arena.address
        exits = sorted({s for _, _, s, _ in compiled.fixups if s.startswith("CHAIN_")})
        if start + len(compiled.code) + 128 * len(exits) + 4096 > arena.size:
            return
        at = start + len(compiled.code) + 15 & -16
        symbols = {"": arena.address + start, BASE: wanted.base}
        for name in exits:
            symbols[name] = arena.address + at
            stub = self._way_out(wanted.base, chain_target(name), arena.address + at)
            arena.put(at, stub)
            at += len(stub) + 15 & -16
        body = bytearray(compiled.code)
        for where, kind, symbol, addend in compiled.fixups:
            if symbol not in symbols:
                if symbol not in cpu.image.functions:
                    return
                symbols[symbol] = arena.address + cpu.image.functions[symbol]
            value = symbols[symbol] + addend
            if kind == 0:
                struct.pack_into("<i", body, where, value - (arena.address + start + where))
            elif kind == 1:
                struct.pack_into("<I", body, where, value & 0xFFFFFFFF)
            else:
                struct.pack_into("<Q", body, where, value & (1 << 64) - 1)
        arena.put(start, bytes(body))
        cpu.set("code_next", arena.address + (at + 15 & -16))
        mask = cpu._code[wanted.page]
        for first, size in wanted.spans:
            last = first + size - 1 >> 6
            mask |= (1 << last + 1) - (1 << (first >> 6))
        cpu._code[wanted.page] = mask
        entry = struct.unpack_from("<Q", cpu._blocks.view, block + 32)[0]
        jump = arena.address + start + compiled.entry - entry - 5
        arena.put(entry - arena.address, b"\xe9" + struct.pack("<i", jump))
        self.installed += 1
        others = self.present.setdefault((wanted.page, wanted.base, wanted.mode), [])
        others[:] = [other for other in others if other.pc != wanted.pc] + [wanted]

    def _way_out(self, base: int, offset: int, at: int) -> bytes:
        """A jump that will be chained to the block at an offset from the page, and what it does
        until then (the same as the stencil x_chain; r12 is the processor, r13 the budget).
        """
        site = at + 1 if 0 <= offset < PAGE else 0
        pc = base + offset & (1 << 64) - 1
        return (
            b"\xe9\0\0\0\0"
            + b"\x49\xc7\x84\x24" + struct.pack("<iI", CPU.offset("chain_site"), site)
            + b"\x48\xb8" + struct.pack("<Q", pc)
            + b"\x49\x89\x84\x24" + struct.pack("<i", CPU.offset("rip"))
            + b"\x41\xc7\x84\x24" + struct.pack("<iI", CPU.offset("exit_reason"), lay.EXIT_NEXT)
            + b"\x4d\x89\xac\x24" + struct.pack("<i", CPU.offset("budget"))
            + b"\xc3"
        )  # fmt: skip


def _signed(n: int) -> int:
    return n - (1 << 64) if n >> 63 else n


def _parsed(symbol: str) -> tuple[str, str, int] | None:
    """Op, form and size of a stencil by its symbol (see StencilKey)."""
    parts = symbol.split("_")
    if parts[-1] != "f" or parts[0] != "s" or not parts[-2].isdigit():
        return None
    form = parts[-3]
    return "_".join(parts[1:-3]), "" if form == "z" else form, int(parts[-2])
