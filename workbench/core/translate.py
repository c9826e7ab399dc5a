"""Guest bytes to host code: the decoder, and the translator that copies stencils and fills their
holes.

All of it is compiled (see lang.py); its tables are made by tables.py.  A block is a run of guest
instructions on one page; it is entered at its start only, and left by a direct jump to another
block
of the same page (patched in when that block exists), through the jump cache, or to the run loop.
An instruction that crosses a page stands alone in its block.

Block record, 8 words: next in hash | position in RAM of the first byte | virtual pc | mode | code |
RAM pages (two i32, -1 none) | next in the pages' lists (two i32) | address of its way out when
dropped.
A page list links (block index << 1 | which of its two pages).
"""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.conditions import point_at
from workbench.core.decode import (
    EA_NONE,
    EA_RIP,
    ENTRY,
    F_BRANCH,
    F_CALL,
    F_COND,
    F_ENDS,
    F_FAULTS,
    F_JUMP,
    F_LEA,
    F_MMX,
    F_MOFFS,
    F_PARTIAL,
    F_READS,
    F_SSE,
    F_STORES,
    F_WRITES,
    INSN,
    TOO_LONG,
    decode,
)
from workbench.core.lang import (
    Layout,
    address_of,
    fn,
    inline,
    load,
    select,
    store,
    u1,
    u8,
    u32,
    u64,
    unlikely,
)
from workbench.core.layout import (
    CPU,
    CS,
    EXIT_CODE_FULL,
    EXIT_MMIO,
    EXIT_UNDEFINED,
    FS,
    GP,
    JC_BITS,
    MMU_KERNEL,
    MMU_USER,
    MODE_FLAT,
    MODE_SLOW,
    MODE_SS32,
    UD,
)
from workbench.core.stencil import HOLES

H = {name: i for i, name in enumerate(HOLES)}
MISS_INDEX = 64  # value indices 64..95: miss stubs by kind
FIXED_INDEX = 128  # value indices from here: addresses that never change
MAX_INSNS = 64
HASH_BITS = 16
PAGE = mmu.PAGE

# Special stencils: indices in `eatab` (i32 stencil numbers).
EA_COUNT = 30  # address size (3) * form (none, base, base+index*1/2/4/8, index*1/2/4/8)
(
    X_SEG64,
    X_SEGLEGACY,
    X_ABS,
    X_PROLOGUE,
    X_MISS,
    X_MISSADDR,
    X_FAULT,
    X_OUT,
    X_DROP,
    X_CHAIN,
    X_SSE,
    X_MMX,
    X_UD,
    X_GOTO0,
    X_GOTO2,
    X_RETIRE,
) = range(EA_COUNT, EA_COUNT + 16)
X_COND = 64  # + cc_op * 16 + condition; cc_op 0: any
X_FUSED = X_COND + 28 * 16

STENCIL = Layout(
    "stencil",
    [
        ("code", "i32"),
        ("size", "i32"),
        ("reloc", "i32"),
        ("relocs", "i32"),
        ("faults", "i32"),
        ("spare", "i32", 11),
    ],
)
RELOC = Layout("reloc", [("at", "i32"), ("kind", "i32"), ("value", "i32"), ("addend", "i32")])
RELOC_BYTES = 16
STUB = Layout(
    "stub",
    [
        ("patch", "i64"),
        ("kind", "i64"),
        ("insn", "i64"),
        ("self", "i64"),
        ("left", "i64"),
        ("target", "i64"),
        ("spare", "i64", 2),
    ],
)
STUB_MISS, STUB_FAULT, STUB_CHAIN, STUB_GOTO = range(4)
MAX_STUBS = 512


@inline
def put_value(cpu: Any, name: str, value: Any) -> None:
    """Set the value of a hole for the next stencils."""
    store(cpu.symbols + H[name] * 8, value)


@fn("ptr", "i32", "i64", "i64", "i64", ret="i64")
def emit(base: Any, number: Any, code: Any, insn: Any, left: Any) -> Any:
    """Copy stencil `number` to `code` and fill its holes; the address behind it."""
    cpu = CPU.view(base)
    st = STENCIL.view(cpu.stencils + number.zx(64) * STENCIL.size)
    source = cpu.stencil_code + st.code.zx(64)
    size = st.size.zx(64)
    i = u64(0)
    while i < size:
        store(code + i, load(source + i, "i64"))
        i += 8
    after = code + size
    symbols = cpu.symbols
    store(symbols + H["CONT"] * 8, after)
    store(symbols + H["SELF"] * 8, code)
    r = cpu.relocs + st.reloc.zx(64) * RELOC_BYTES
    end = r + st.relocs.zx(64) * RELOC_BYTES
    while r < end:
        at = code + load(r, "i32").zx(64)
        kind = load(r + 4, "i32")
        value = load(r + 8, "i32")
        addend = load(r + 12, "i32").sx(64)
        if kind == 0:
            is_miss = (value >= MISS_INDEX) & (value < MISS_INDEX + 32)
            if is_miss | (value == H["FAULT"]) | (value == H["TAKEN"]):
                # walk_page is free while translating: it counts the stubs to come
                n = cpu.walk_page
                stub = STUB.view(cpu.stubs + n * STUB.size)
                stub.patch = at
                stub.insn = insn
                stub.self = code
                stub.left = left
                stub.kind = select(
                    is_miss,
                    (value - MISS_INDEX).zx(64) << 8,
                    select(value == H["FAULT"], u64(STUB_FAULT), u64(STUB_CHAIN)),
                )
                stub.target = load(insn + INSN.offset("target"), "i64")
                cpu.walk_page = n + 1
            else:
                store(at, (load(symbols + value.zx(64) * 8, "i64") + addend - at).tr(32))
        elif kind == 1:
            store(at, (load(symbols + value.zx(64) * 8, "i64") + addend).tr(32))
        elif kind == 3:
            store(at, (load(symbols + value.zx(64) * 8, "i64") + addend).tr(8))
        elif kind == 4:
            store(at, (load(symbols + value.zx(64) * 8, "i64") + addend).tr(16))
        else:
            store(at, load(symbols + value.zx(64) * 8, "i64") + addend)
        r += RELOC_BYTES
    return after


@inline
def special(cpu: Any, index: Any) -> Any:
    """Stencil number of a special stencil."""
    return load(cpu.eatab + index * 4, "i32")


@inline
def add_chain(cpu: Any, code: Any, insn: Any, target: Any) -> Any:
    """Emit a jump that will be chained to the block at `target`; the address behind it."""
    store(code, u8(0xE9))
    n = cpu.walk_page
    stub = STUB.view(cpu.stubs + n * STUB.size)
    stub.patch = code + 1
    stub.insn = insn
    stub.kind = STUB_CHAIN
    stub.target = target
    cpu.walk_page = n + 1
    return code + 5


@fn("ptr", "i64", "i64", "i64", "i64", "i32", "i32", ret="i64")
def translate(
    base: Any, pc: Any, linear: Any, host: Any, block_at: Any, slow: Any, limit: Any
) -> Any:
    """Translate the block at `pc`; its code address, or 0 with an exception or EXIT_CODE_FULL
    noted.

    `host` is where its first byte is, `block_at` the record to fill (0: a temporary block in the
    scratch buffer, that nothing else will find), `limit` the greatest number of instructions.
    """
    cpu = CPU.view(base)
    code = cpu.code_next
    if block_at == 0:
        code = cpu.scratch_code
    elif code + 256 * 1024 > cpu.code_end:
        cpu.exit_reason = EXIT_CODE_FULL
        return u64(0)
    mode = cpu.mode
    is64 = (mode & 3) == 2
    legacy = is64 ^ 1
    checked = legacy & ((mode & MODE_FLAT) == 0)
    last_pc = select(checked, cpu.seg_limit[CS].zx(64), u64(-1))
    plain_stack = is64 | ((mode & (MODE_FLAT | MODE_SS32)) == (MODE_FLAT | MODE_SS32))
    insns = cpu.insns
    room = 0x1000 - (host & PAGE)  # bytes on this page
    used = u64(0)
    n = u64(0)
    crossing = u64(0)
    undefined = u1(0)
    ended = u1(0)
    second = u64(0)
    at_pc = pc
    more = u1(1)
    # 1. decode
    while more:
        rec = insns + n * INSN.size
        length = decode(base, host + used, room - used, at_pc, rec)
        if unlikely(length == TOO_LONG):  # SDM volume 3, 6.15, interrupt 13
            if n == 0:
                mmu.raise_exception(base, GP, 0)
                return u64(0)
            more = u1(0)
        elif length >= 16:
            # it does not end on this page
            if n != 0:
                more = u1(0)
            else:
                user = cpu.cpl == 3
                other = (linear & ~PAGE) + 0x1000
                if legacy:
                    other = other & 0xFFFFFFFF
                second = mmu.probe(
                    base, other, mmu.FETCH, select(user, u32(MMU_USER), u32(MMU_KERNEL))
                )
                if second == 0:
                    if cpu.exit_reason == EXIT_MMIO:
                        mmu.raise_plain(base, UD)
                    return u64(0)
                buffer = address_of(cpu.bounce.at(0))
                i = u64(0)
                while i < 16:
                    store(buffer + i, load(select(i < room, host + i, second + i - room), "i8"))
                    i += 1
                length = decode(base, buffer, u64(15), at_pc, rec)
                if length >= 16:
                    mmu.raise_exception(base, GP, 0)
                    return u64(0)
                crossing = u64(1)
                if length == 0:
                    undefined = u1(1)
                elif at_pc + length - 1 > last_pc:
                    mmu.raise_exception(base, GP, 0)
                    return u64(0)
                n = u64(1)
                used = room
                more = u1(0)
                at_pc = at_pc + length
        elif length == 0:
            undefined = n == 0
            more = u1(0)
            if n == 0:
                n = u64(1)
        elif unlikely(checked & (at_pc + length - 1 > last_pc)):
            if n == 0:
                mmu.raise_exception(base, GP, 0)
                return u64(0)
            more = u1(0)
        else:
            n += 1
            used += length
            at_pc += length
            flags = load(load(rec + INSN.offset("entry"), "i64") + ENTRY.offset("flags"), "i32")
            if (flags & (F_ENDS | F_STORES)) != 0:
                more = u1(0)
                ended = (flags & F_ENDS) != 0
            if n >= limit.zx(64) or used >= room:
                more = u1(0)
            elif unlikely(cpu.bp_count != 0):
                if point_at(base, linear + used) != 0:
                    more = u1(0)
    if undefined:
        # keep the bytes for people; Python notes them and raises #UD
        i = u64(0)
        while i < 15:
            cpu.last_bytes[i] = load(
                select(i < room, host + i, select(second == 0, host, second + i - room)), "i8"
            )
            i += 1
        cpu.exit_reason = EXIT_UNDEFINED
        return u64(0)
    # 2. which flags are looked at, backwards
    live = u64(1)
    k = n
    while k > 0:
        k -= 1
        rec = insns + k * INSN.size
        entry = ENTRY.view(load(rec + INSN.offset("entry"), "i64"))
        flags = entry.flags
        store(rec + INSN.offset("live"), live)
        if (flags & F_WRITES) != 0:
            live = u64(0)
        if (flags & (F_READS | F_FAULTS | F_PARTIAL)) != 0:
            live = u64(1)
    # 3. emit
    cpu.walk_page = 0
    start = code
    put_value(cpu, "N", n)
    put_value(cpu, "PC", pc)
    code = emit(base, special(cpu, X_PROLOGUE), code, insns, n)
    known = u64(0)  # cc_op that the last instruction left, 0 unknown
    checked_sse = u1(0)
    checked_mmx = u1(0)
    fused = u1(0)
    k = u64(0)
    while k < n:
        rec = insns + k * INSN.size
        insn = INSN.view(rec)
        entry = ENTRY.view(insn.entry)
        flags = entry.flags
        left = n - k
        put_value(cpu, "PC", insn.pc)
        put_value(cpu, "NEXT", insn.next)
        put_value(cpu, "LEFT", left)
        put_value(cpu, "OP0", insn.op[0])
        put_value(cpu, "OP1", insn.op[1])
        put_value(cpu, "OP2", insn.op[2])
        put_value(cpu, "OP3", insn.op[3])
        put_value(cpu, "IMM", insn.imm)
        put_value(cpu, "LENGTH", insn.asize)
        put_value(cpu, "RM", insn.rm)
        segment = insn.segment & 7
        put_value(cpu, "SEGNO", segment)
        put_value(cpu, "SEG", segment * 8 + CPU.offset("seg_base"))
        put_value(cpu, "DISP", insn.disp)
        put_value(cpu, "BASE", insn.base)
        put_value(cpu, "INDEX", insn.index)
        put_value(cpu, "TARGET", insn.target)
        if (flags & F_SSE) != 0 and not checked_sse:
            code = emit(base, special(cpu, X_SSE), code, rec, left)
            checked_sse = u1(1)
        if (flags & F_MMX) != 0 and not checked_mmx:
            code = emit(base, special(cpu, X_MMX), code, rec, left)
            checked_mmx = u1(1)
        # the condition first: the address stencils pass it on
        if (flags & F_COND) != 0:
            code = emit(base, special(cpu, X_COND + known * 16 + insn.cond), code, rec, left)
        ea = insn.ea
        if ea != u64(EA_NONE):
            if ea == EA_RIP:
                address = insn.next + insn.disp
                if legacy or (insn.asize == 4 and (flags & F_MOFFS) == 0):
                    address = address & 0xFFFFFFFF
                put_value(cpu, "TARGET", address)
                code = emit(base, special(cpu, u64(X_ABS)), code, rec, left)
                put_value(cpu, "TARGET", insn.target)
            else:
                code = emit(base, special(cpu, ea), code, rec, left)
            if (flags & F_LEA) == 0:
                if is64:
                    if segment >= FS:
                        code = emit(base, special(cpu, u64(X_SEG64)), code, rec, left)
                elif checked | (segment >= FS):
                    put_value(cpu, "ACC", entry.access.zx(64))
                    code = emit(base, special(cpu, u64(X_SEGLEGACY)), code, rec, left)
        number = entry.hot
        if slow != 0 and entry.slow.slt(0) ^ 1:
            number = entry.slow
        elif insn.live == 0 and entry.nf.slt(0) ^ 1:
            number = entry.nf
        # compare and branch in one
        if slow == 0 and entry.fuse.slt(0) ^ 1 and k + 2 == n:
            follow = INSN.view(rec + INSN.size)
            fflags = load(follow.entry + ENTRY.offset("flags"), "i32")
            if (fflags & F_BRANCH) != 0 and (fflags & F_COND) != 0:
                fuse = special(cpu, X_FUSED + entry.fuse.zx(64) * 16 + follow.cond)
                if fuse.slt(0) ^ 1:
                    number = fuse
                    insn.target = follow.target
                    insn.next = follow.next
                    insn.spare[0] = follow.entry
                    fused = u1(1)
        if insn.nop == 0:
            code = emit(base, number, code, rec, left)
        if (flags & (F_WRITES | F_PARTIAL)) != 0:
            known = select(entry.cc.slt(0) | ((flags & F_PARTIAL) != 0), u64(0), entry.cc.zx(64))
            if insn.live == 0:
                known = u64(0)
        k += 1
        if fused:
            k = n
    # 4. the way on
    last_rec = insns + (n - 1) * INSN.size
    if fused:
        last_rec = insns + (n - 2) * INSN.size
    last = INSN.view(last_rec)
    lflags = load(last.entry + ENTRY.offset("flags"), "i32")
    if fused:
        lflags = u32(F_BRANCH | F_ENDS)
    if (ended ^ 1) | ((lflags & (F_JUMP | F_CALL | F_BRANCH)) != 0):
        target = last.next
        if (lflags & (F_JUMP | F_CALL)) != 0:
            target = last.target
        code = add_chain(cpu, code, last_rec, target)
    # 5. the stubs
    i = u64(0)
    while i < cpu.walk_page:
        stub = STUB.view(cpu.stubs + i * STUB.size)
        kind = stub.kind
        patch = stub.patch
        store(patch, (code - patch - 4).tr(32))
        if kind == STUB_CHAIN:
            target = stub.target
            put_value(cpu, "TARGET", target)
            if (((target ^ pc) & ~PAGE) == 0) & plain_stack & (block_at != 0):
                put_value(cpu, "SITE", patch)
                code = emit(base, special(cpu, u64(X_CHAIN)), code, last_rec, u64(0))
            else:
                code = emit(
                    base,
                    special(cpu, select(plain_stack, u64(X_GOTO0), u64(X_GOTO2))),
                    code,
                    last_rec,
                    u64(0),
                )
        else:
            rec = stub.insn
            put_value(cpu, "PC", load(rec, "i64"))
            put_value(cpu, "LEFT", stub.left)
            if kind == STUB_FAULT:
                code = emit(base, special(cpu, u64(X_FAULT)), code, rec, u64(0))
            else:
                miss = kind >> 8
                which = select((miss & 16) != 0, u64(X_MISSADDR), u64(X_MISS))
                put_value(cpu, "SITE", stub.self | (stub.left << 32) | ((miss & 15) << 48))
                code = emit(base, special(cpu, which), code, rec, u64(0))
        i += 1
    put_value(cpu, "PC", pc)
    put_value(cpu, "N", n)
    out = code
    code = emit(base, special(cpu, u64(X_OUT)), code, insns, u64(0))
    drop = code
    code = emit(base, special(cpu, u64(X_DROP)), code, insns, u64(0))
    # the prologue's jump to OUT: its place is fixed in that stencil
    st = STENCIL.view(cpu.stencils + special(cpu, u64(X_PROLOGUE)).zx(64) * STENCIL.size)
    r = cpu.relocs + st.reloc.zx(64) * RELOC_BYTES
    end = r + st.relocs.zx(64) * RELOC_BYTES
    while r < end:
        if load(r + 8, "i32") == H["OUT"]:
            at = start + load(r, "i32").zx(64)
            store(at, (out - at - 4).tr(32))
        r += RELOC_BYTES
    cpu.n_insns = cpu.n_insns + n
    if block_at == 0:
        return start
    cpu.code_next = (code + 15) & ~15
    cpu.n_blocks = cpu.n_blocks + 1
    # 6. the record
    index = (block_at - cpu.blocks) >> 6
    ram = cpu.ram
    first_page = (host - ram) >> 12
    position = host - ram
    store(block_at + 8, position)
    store(block_at + 16, pc)
    store(block_at + 24, key_of(cpu, slow))
    store(block_at + 32, start)
    store(block_at + 40, first_page.tr(32))
    store(block_at + 44, u32(-1))
    store(block_at + 56, drop)
    note_page(cpu, base, block_at, index, 0, first_page, host & PAGE, used - 1 + (host & PAGE))
    if crossing != 0:
        second_page = (second - ram) >> 12
        store(block_at + 44, second_page.tr(32))
        note_page(cpu, base, block_at, index, 1, second_page, u64(0), u64(15))
    slot = cpu.block_hash + hash_of(position, pc, load(block_at + 24, "i64")) * 4
    store(block_at, load(slot, "i32").zx(64))
    store(slot, index.tr(32))
    return start


@inline
def note_page(
    cpu: Any, base: Any, block_at: Any, index: Any, which: int, page: Any, first: Any, last: Any
) -> None:
    """Link a block into a RAM page's list and mark the 64-byte chunks from byte `first` to
    `last`.
    """
    span = (u64(-1) << (first >> 6)) & (u64(-1) >> (63 - (last >> 6)))
    mask = load(cpu.page_code + page * 8, "i64")
    if mask == 0:
        mmu.forget_writable(base, cpu.ram + page * 4096)
    store(cpu.page_code + page * 8, mask | span)
    store(block_at + 48 + which * 4, load(cpu.page_head + page * 8, "i64").tr(32))
    store(cpu.page_head + page * 8, index * 2 + which)


@inline
def key_of(cpu: Any, slow: Any) -> Any:
    """What blocks at one place differ in: the mode, and where segments are checked the limit of CS,
    at which they end.
    """
    mode = cpu.mode | select(slow != 0, u32(MODE_SLOW), u32(0))
    checked = ((mode & 3) != 2) & ((mode & MODE_FLAT) == 0)
    return mode.zx(64) | (select(checked, cpu.seg_limit[CS], u32(0)).zx(64) << 32)


@inline
def hash_of(position: Any, pc: Any, mode: Any) -> Any:
    """Slot of the block table."""
    h = position ^ (position >> 13) ^ (pc >> 12) ^ (mode << 9)
    return h & ((1 << HASH_BITS) - 1)


@inline
def locate(base: Any, cpu: Any) -> Any:
    """Linear and host address of the instruction at RIP; host 0 with the exception noted."""
    linear = linear_pc(cpu)
    if unlikely(((cpu.mode & 3) != 2) & (cpu.rip > cpu.seg_limit[CS].zx(64))):
        mmu.raise_exception(base, GP, 0)
        return linear, u64(0)
    which = select(cpu.cpl == 3, u32(MMU_USER), u32(MMU_KERNEL))
    host = mmu.probe(base, linear, mmu.FETCH, which)
    if unlikely(host == 0):
        if cpu.exit_reason == EXIT_MMIO:
            mmu.raise_plain(base, UD)
    return linear, host


@inline
def linear_pc(cpu: Any) -> Any:
    """Linear address of the instruction at RIP."""
    pc = cpu.rip
    return select((cpu.mode & 3) == 2, pc, (pc + cpu.seg_base[CS]) & 0xFFFFFFFF)


@fn("ptr", "i32", ret="i64")
def find_code(base: Any, slow: Any) -> Any:
    """Code for the instruction at RIP, translated now if need be; 0 with the reason noted."""
    cpu = CPU.view(base)
    pc = cpu.rip
    mode = cpu.mode
    is64 = (mode & 3) == 2
    linear, host = locate(base, cpu)
    if unlikely(host == 0):
        return u64(0)
    which = select(cpu.cpl == 3, u32(MMU_USER), u32(MMU_KERNEL))
    position = host - cpu.ram
    key = key_of(cpu, slow)
    slot = cpu.block_hash + hash_of(position, pc, key) * 4
    n = load(slot, "i32").zx(64)
    code = u64(0)
    crossing = u1(0)
    while n != 0:
        block = cpu.blocks + (n << 6)
        n = load(block, "i64")
        if (
            load(block + 8, "i64") == position
            and load(block + 16, "i64") == pc
            and load(block + 24, "i64") == key
        ):
            second = load(block + 44, "i32")
            fits = u1(1)
            if second != u32(-1):
                other = (linear & ~PAGE) + 0x1000
                if not is64:
                    other = other & 0xFFFFFFFF
                there = mmu.probe(base, other, mmu.FETCH, which)
                if there == 0:
                    if cpu.exit_reason == EXIT_MMIO:
                        mmu.raise_plain(base, UD)
                    return u64(0)
                fits = ((there - cpu.ram) >> 12).tr(32) == second
                crossing = u1(1)
                mmu.note_executed(cpu, other)
            if fits:
                code = load(block + 32, "i64")
                n = u64(0)
    if code == 0:
        index = cpu.block_count
        if index >= cpu.block_max:
            cpu.exit_reason = EXIT_CODE_FULL
            return u64(0)
        block = cpu.blocks + (index << 6)
        code = translate(
            base, pc, linear, host, block, slow, select(slow != 0, u32(1), cpu.max_insns)
        )
        if code == 0:
            return u64(0)
        cpu.block_count = index + 1
        crossing = load(block + 44, "i32") != u32(-1)
    mmu.note_executed(cpu, linear)
    if crossing:
        mmu.note_executed(cpu, linear + 0x1000)
    if slow == 0:
        site = cpu.chain_site
        if site != 0:
            if not crossing:
                store(site, (code - site - 4).tr(32))
                cpu.n_chains = cpu.n_chains + 1
        at = (((pc ^ (pc >> 12)) << 4) & ((1 << (JC_BITS + 4)) - 16)) | (
            (pc >> 63) << (JC_BITS + 4)
        )
        store(address_of(cpu.jc.at(0)) + at, pc ^ cpu.jc_key)
        store(address_of(cpu.jc.at(0)) + at + 8, code)
    cpu.chain_site = 0
    return code
