"""Paging, the software TLB, and every memory access that the inlined fast path cannot do.

Page tables: SDM volume 3, chapter 4.  A TLB entry is four words: the page address as a tag for
reads,
for writes (absent while the page is clean or read-only) and for fetches (with flag bits in its low
bits), and the distance from guest virtual to host address.  A tag of -1 never hits; nor does one
with
a mark (WATCHED, HELD) in the inlined path, but its translation holds.

`mmu` selects the TLB: MMU_USER, MMU_KERNEL (user pages reachable) or MMU_KERNEL_SMAP.
Host pointers are returned as i64; 0 means that the instruction must not go on: `exit_reason` says
why.
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import (
    address_of,
    fn,
    inline,
    likely,
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
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    CR4_SMEP,
    EFER_LMA,
    EFER_NXE,
    EXIT_EXCEPTION,
    EXIT_MMIO,
    GP,
    HELD,
    JC_BYTES,
    MARKS,
    MAX_WATCHES,
    MMU_COUNT,
    MMU_FETCH_KERNEL,
    MMU_FETCH_USER,
    MMU_KERNEL_SMAP,
    MMU_USER,
    PFV,
    TLB_BYTES,
    TLB_ENTRIES,
    TLB_ENTRY,
    WATCH_READ,
    WATCH_WRITE,
    WATCHED,
)
from workbench.core.polls import polled

READ, WRITE, FETCH = 0, 1, 2
PAGE = 0xFFF
MAXPHYADDR = 40
PTE_P, PTE_W, PTE_U, PTE_A, PTE_D, PTE_PS, PTE_G = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
NX = 1 << 63
ADDRESS = ((1 << 52) - 1) & ~PAGE
RESERVED = ((1 << 52) - 1) & ~((1 << MAXPHYADDR) - 1)
FOUR_GIB = 1 << 32

# walk_flags
WALK_W, WALK_X, WALK_G, WALK_R, WALK_L = 1, 2, 4, 8, 16
# low bits of tag_x
TAG_X, TAG_G, TAG_L = 1, 2, 4


@inline
def host_of(cpu: Any, phys: Any) -> Any:
    """Host address of a guest-physical address in RAM (or ROM), else 0."""
    phys = phys & cpu.a20_mask
    at = select(phys < FOUR_GIB, phys, phys - FOUR_GIB + cpu.ram_low)
    bound = select(phys < FOUR_GIB, cpu.ram_low, cpu.ram_low + cpu.ram_high)
    if unlikely(at >= bound):
        if likely(phys - cpu.rom_base >= cpu.rom_bytes):
            return u64(0)
        at = phys - cpu.rom_base + cpu.rom_at
    if unlikely(load(cpu.page_attr + (at >> 12), "i8") == 0):
        return u64(0)
    return cpu.ram + at


@fn("ptr", "i64", ret="i64")
def phys_host(base: Any, phys: Any) -> Any:
    """`host_of` as a function."""
    return host_of(CPU.view(base), phys)


@fn("ptr", "i32", "i32")
def raise_exception(base: Any, vector: Any, error: Any) -> None:
    """Note an exception with an error code; the caller leaves the generated code."""
    cpu = CPU.view(base)
    cpu.exit_reason = EXIT_EXCEPTION
    cpu.exc_vector = vector
    cpu.exc_error = error
    cpu.exc_has_error = 1
    cpu.exc_soft = 0


@fn("ptr", "i32")
def raise_plain(base: Any, vector: Any) -> None:
    """Note an exception without an error code."""
    cpu = CPU.view(base)
    cpu.exit_reason = EXIT_EXCEPTION
    cpu.exc_vector = vector
    cpu.exc_error = 0
    cpu.exc_has_error = 0
    cpu.exc_soft = 0


@fn("ptr", "i64", "i32")
def page_fault(base: Any, addr: Any, error: Any) -> None:
    """Note a #PF; CR2 is set when it is delivered."""
    cpu = CPU.view(base)
    cpu.fault_addr = addr
    raise_exception(base, PFV, error)


@inline
def read_pte(cpu: Any, at: Any, size: int) -> Any:
    """A page-table entry as i64; a table outside of RAM reads as not present."""
    host = host_of(cpu, at)
    if unlikely(host == 0):
        return u64(0)
    return load(host, f"i{size * 8}").zx(64)


@inline
def note_dirty(cpu: Any, index: Any) -> None:
    """RAM page `index` is being written: the next snapshot holds a copy of it."""
    store(cpu.page_dirty + index, u8(1))


@inline
def mark_pte(cpu: Any, at: Any, old: Any, bits: Any, size: int) -> None:
    """Set A or D bits in an entry, if they are not set."""
    if (old & bits) != bits:
        host = host_of(cpu, at)
        if likely(host != 0):
            store(host, (old | bits).tr(size * 8))
            note_dirty(cpu, (host - cpu.ram) >> 12)


@fn("ptr", "i64", "i32", "i32", ret="i32")
def walk(base: Any, vaddr: Any, access: Any, mmu: Any) -> Any:
    """Translate `vaddr`; 1 with walk_page (physical, page-aligned) and walk_flags, or 0 with a
    fault noted.
    """
    cpu = CPU.view(base)
    if (cpu.cr0 & CR0_PG) == 0:
        cpu.walk_page = vaddr & 0xFFFFF000 & cpu.a20_mask
        cpu.walk_flags = WALK_W | WALK_X | WALK_G | WALK_R
        return u32(1)
    user = mmu == MMU_USER
    write = access == WRITE
    fetch = access == FETCH
    cr4 = cpu.cr4
    nxe = (cpu.efer & EFER_NXE) != 0
    err = (write.zx(32) << 1) | (user.zx(32) << 2)
    if fetch and (nxe or (cr4 & CR4_SMEP) != 0):
        err |= 16
    reserved = u64(RESERVED)
    if not nxe:
        reserved |= NX
    page = u64(0)  # physical page
    perms = u64(PTE_W | PTE_U)
    nx = u64(0)
    leaf = u64(0)  # the last entry, where it is, and its size
    leaf_at = u64(0)
    large = u64(0)
    wide = u1(1)
    done = u1(0)
    table = cpu.cr3
    if (cpu.efer & EFER_LMA) != 0:
        if unlikely(vaddr.sar(47) + 1 > 1):
            raise_exception(base, GP, 0)
            return u32(0)
        table = table & ADDRESS
        for shift, level in ((39, 4), (30, 3), (21, 2), (12, 1)):
            if not done:
                at = table | (((vaddr >> shift) & 511) << 3)
                pte = read_pte(cpu, at, 8)
                if (pte & PTE_P) == 0:
                    page_fault(base, vaddr, err)
                    return u32(0)
                if (pte & reserved) != 0 or (level == 4 and (pte & PTE_PS) != 0):
                    page_fault(base, vaddr, err | 9)
                    return u32(0)
                perms &= pte
                nx |= pte
                if level == 1:
                    leaf = pte
                    leaf_at = at
                    page = pte & ADDRESS
                    done = u1(1)
                elif level < 4 and (pte & PTE_PS) != 0:
                    low = (1 << shift) - 1
                    if (pte & (low & ~0x1FFF)) != 0:
                        page_fault(base, vaddr, err | 9)
                        return u32(0)
                    leaf = pte
                    leaf_at = at
                    large = u64(WALK_L)
                    page = (pte & (ADDRESS & ~low)) | (vaddr & (low & ~PAGE))
                    done = u1(1)
                else:
                    mark_pte(cpu, at, pte, u64(PTE_A), 8)
                    table = pte & ADDRESS
    elif (cr4 & CR4_PAE) != 0:
        at = (table & 0xFFFFFFE0) | (((vaddr >> 30) & 3) << 3)
        pte = read_pte(cpu, at, 8)
        if (pte & PTE_P) == 0:
            page_fault(base, vaddr, err)
            return u32(0)
        table = pte & ADDRESS
        for shift, level in ((21, 2), (12, 1)):
            if not done:
                at = table | (((vaddr >> shift) & 511) << 3)
                pte = read_pte(cpu, at, 8)
                if (pte & PTE_P) == 0:
                    page_fault(base, vaddr, err)
                    return u32(0)
                if (pte & (reserved | (0x7FF << 52))) != 0:
                    page_fault(base, vaddr, err | 9)
                    return u32(0)
                perms &= pte
                nx |= pte
                if level == 1:
                    leaf = pte
                    leaf_at = at
                    page = pte & ADDRESS
                    done = u1(1)
                elif (pte & PTE_PS) != 0:
                    if (pte & 0x1FE000) != 0:
                        page_fault(base, vaddr, err | 9)
                        return u32(0)
                    leaf = pte
                    leaf_at = at
                    page = (pte & (ADDRESS & ~0x1FFFFF)) | (vaddr & 0x1FF000)
                    large = u64(WALK_L)
                    done = u1(1)
                else:
                    mark_pte(cpu, at, pte, u64(PTE_A), 8)
                    table = pte & ADDRESS
    else:
        wide = u1(0)
        table = table & 0xFFFFF000
        at = table | (((vaddr >> 22) & 1023) << 2)
        pte = read_pte(cpu, at, 4)
        if (pte & PTE_P) == 0:
            page_fault(base, vaddr, err)
            return u32(0)
        perms &= pte
        if (pte & PTE_PS) != 0 and (cr4 & CR4_PSE) != 0:
            if (pte & 0x200000) != 0:
                page_fault(base, vaddr, err | 9)
                return u32(0)
            leaf = pte
            leaf_at = at
            page = (pte & 0xFFC00000) | ((pte & 0x1FE000) << 19) | (vaddr & 0x3FF000)
            large = u64(WALK_L)
        else:
            mark_pte(cpu, at, pte, u64(PTE_A), 4)
            at = (pte & 0xFFFFF000) | (((vaddr >> 12) & 1023) << 2)
            pte = read_pte(cpu, at, 4)
            if (pte & PTE_P) == 0:
                page_fault(base, vaddr, err)
                return u32(0)
            perms &= pte
            leaf = pte
            leaf_at = at
            page = pte & 0xFFFFF000
    user_page = (perms & PTE_U) != 0
    no_exec = nxe & ((nx & NX) != 0)
    can_write = (perms & PTE_W) != 0
    can_read = u1(1)
    can_fetch = no_exec ^ 1
    if user:
        can_read = user_page
        can_write &= user_page
        can_fetch &= user_page
    else:
        can_write |= (cpu.cr0 & CR0_WP) == 0
        can_read = (user_page & (mmu == MMU_KERNEL_SMAP)) ^ 1
        can_write &= can_read
        can_fetch &= (user_page & ((cr4 & CR4_SMEP) != 0)) ^ 1
    allowed = select(fetch, can_fetch, select(write, can_write, can_read))
    if not allowed:
        page_fault(base, vaddr, err | 1)
        return u32(0)
    bits = PTE_A | (write.zx(64) << 6)
    if wide:
        mark_pte(cpu, leaf_at, leaf, bits, 8)
    else:
        mark_pte(cpu, leaf_at, leaf, bits, 4)
    dirty = (leaf & PTE_D) != 0 or write
    is_global = (leaf & PTE_G) != 0 and (cr4 & CR4_PGE) != 0
    cpu.walk_page = page & cpu.a20_mask
    cpu.walk_flags = (
        (can_write & dirty).zx(64) * WALK_W
        | can_fetch.zx(64) * WALK_X
        | is_global.zx(64) * WALK_G
        | can_read.zx(64) * WALK_R
        | large
    )
    return u32(1)


@inline
def fetch_tlb(mmu: Any) -> Any:
    """The TLB for fetches with the rights of `mmu`."""
    return select(mmu == MMU_USER, u32(MMU_FETCH_USER), u32(MMU_FETCH_KERNEL))


@inline
def tlb_entry(cpu: Any, mmu: Any, vaddr: Any) -> Any:
    """Host address of the TLB entry that `vaddr` falls on."""
    tlb = address_of(cpu.tlbs.at(0)) + mmu.zx(64) * TLB_BYTES
    return tlb + ((vaddr >> (12 - 5)) & ((TLB_ENTRIES - 1) * TLB_ENTRY))


@inline
def bloom_slot(page: Any) -> Any:
    """Word and bit of a virtual page in the set of pages that were executed since the last
    flush.
    """
    n = (page >> 12) ^ (page >> 24)
    return (n >> 6) & 63, u64(1) << (n & 63)


@fn("ptr", "i64", "i64", "i64", "i64")
def watch_access(base: Any, addr: Any, size: Any, kind: Any, icount: Any) -> None:
    """Compare an access (kind: WATCH_READ or WATCH_WRITE) with the watched ranges: the
    debugger's, and those of the guest's debug registers.
    """
    cpu = CPU.view(base)
    n = u64(0)
    while n < cpu.watch_count.zx(64):
        if (
            addr < cpu.watch_hi[n]
            and addr + size > cpu.watch_lo[n]
            and (cpu.watch_kind[n].zx(64) & kind) != 0
        ):
            cpu.watch_last = icount
            cpu.watch_last_range = n
            cpu.watch_hits = cpu.watch_hits + 1
            if cpu.watch_log == 0:
                cpu.watch_pending = n + 1
        n += 1
    for i in range(4):
        slot = MAX_WATCHES + i
        if (
            (cpu.watch_kind[slot].zx(64) & kind) != 0
            and addr < cpu.watch_hi[slot]
            and addr + size > cpu.watch_lo[slot]
        ):
            cpu.dr_hits = cpu.dr_hits | (1 << i)


@inline
def note_watch(cpu: Any, base: Any, addr: Any, size: Any, kind: int, icount: Any) -> None:
    """`watch_access`, when there are watchpoints."""
    if unlikely(cpu.watching != 0):
        watch_access(base, addr, size, u64(kind), icount)


@fn("ptr", "i64", ret="i64")
def watch_tag(base: Any, vpage: Any) -> Any:
    """WATCHED for a page that a watched range touches, else 0."""
    cpu = CPU.view(base)
    n = u64(0)
    found = u64(0)
    while n < cpu.watch_count.zx(64):
        if vpage + 0x1000 > cpu.watch_lo[n] and vpage < cpu.watch_hi[n]:
            found = u64(WATCHED)
        n += 1
    for slot in range(MAX_WATCHES, MAX_WATCHES + 4):
        if (
            cpu.watch_kind[slot] != 0
            and vpage + 0x1000 > cpu.watch_lo[slot]
            and vpage < cpu.watch_hi[slot]
        ):
            found = u64(WATCHED)
    return found


@fn("ptr", "i64", "i32", "i32", ret="i64")
def tlb_fill(base: Any, vaddr: Any, access: Any, mmu: Any) -> Any:
    """Walk and fill; the host address of the byte at `vaddr`, or 0.

    0 with exit_reason EXIT_EXCEPTION is a fault; 0 with EXIT_MMIO means that the page is no RAM
    (or is ROM and this is a write): walk_page holds its address.
    """
    cpu = CPU.view(base)
    cpu.n_misses = cpu.n_misses + 1
    if walk(base, vaddr, access, mmu) == 0:
        return u64(0)
    phys = cpu.walk_page
    host = host_of(cpu, phys)
    if unlikely(host == 0):
        cpu.exit_reason = EXIT_MMIO
        return u64(0)
    index = (host - cpu.ram) >> 12
    rom = load(cpu.page_attr + index, "i8") == 2
    if unlikely(rom & (access == WRITE)):
        cpu.exit_reason = EXIT_MMIO
        return u64(0)
    flags = cpu.walk_flags
    vpage = vaddr & ~PAGE
    held = load(cpu.page_code + index * 8, "i64") != 0
    if access == WRITE:
        note_dirty(cpu, index)
    else:
        held |= load(cpu.page_dirty + index, "i8") == 0
    entry = tlb_entry(cpu, select(access == FETCH, fetch_tlb(mmu), mmu), vaddr)
    if access == FETCH:
        flags &= ~(WALK_R | WALK_W)
    tag = vpage
    if unlikely(cpu.watching != 0):
        tag = vpage | watch_tag(base, vpage)
    store(entry, select((flags & WALK_R) != 0, tag, u64(-1)))
    writes = tag | select(held, u64(HELD), u64(0))
    store(entry + 8, select(((flags & WALK_W) != 0) & (rom ^ 1), writes, u64(-1)))
    store(
        entry + 16,
        vpage
        | select((flags & WALK_X) != 0, u64(TAG_X), u64(0))
        | select((flags & WALK_G) != 0, u64(TAG_G), u64(0))
        | select((flags & WALK_L) != 0, u64(TAG_L), u64(0)),
    )
    store(entry + 24, host - vpage)
    if unlikely((flags & WALK_L) != 0):
        region = (vaddr >> 30) & 1023
        word = region >> 6
        cpu.large_bloom[word] = cpu.large_bloom[word] | (u64(1) << (region & 63))
    return host + (vaddr & PAGE)


@inline
def release(cpu: Any, entry: Any, host: Any) -> Any:
    """The page at `host` is being written through a TLB entry, which need not hold back the next
    write unless the page holds translated code.  Is the entry without that mark now?
    """
    index = (host - cpu.ram) >> 12
    note_dirty(cpu, index)
    free = load(cpu.page_code + index * 8, "i64") == 0
    if free:
        store(entry + 8, load(entry + 8, "i64") & ~HELD)
    return free


@fn("ptr", "i64", "i32", "i32", ret="i64")
def probe(base: Any, vaddr: Any, access: Any, mmu: Any) -> Any:
    """Host address of one byte through the TLB, filling it; 0 as `tlb_fill` does.

    A write probe of a page that holds translated code succeeds: the caller tells `wrote_code`.
    """
    cpu = CPU.view(base)
    entry = tlb_entry(cpu, select(access == FETCH, fetch_tlb(mmu), mmu), vaddr)
    vpage = vaddr & ~PAGE
    if access == READ and (load(entry, "i64") & ~WATCHED) == vpage:
        return vaddr + load(entry + 24, "i64")
    if access == WRITE and (load(entry + 8, "i64") & ~MARKS) == vpage:
        host = vaddr + load(entry + 24, "i64")
        release(cpu, entry, host)
        return host
    if access == FETCH and (load(entry + 16, "i64") & ~(TAG_G | TAG_L)) == (vpage | TAG_X):
        return vaddr + load(entry + 24, "i64")
    return tlb_fill(base, vaddr, access, mmu)


@inline
def note_executed(cpu: Any, vaddr: Any) -> None:
    """Remember that code of this page may be in the jump cache, for INVLPG and CR3 writes."""
    word, bit = bloom_slot(vaddr & ~PAGE)
    cpu.exec_bloom[word] = cpu.exec_bloom[word] | bit
    if vaddr.slt(0):
        user = cpu.cpl == 3
        entry = tlb_entry(cpu, select(user, u32(MMU_FETCH_USER), u32(MMU_FETCH_KERNEL)), vaddr)
        if (load(entry + 16, "i64") & TAG_G) == 0:
            cpu.exec_high_nonglobal = 1


@fn("ptr", "i64", "i64")
def wrote_code(base: Any, host: Any, size: Any) -> None:
    """Bytes [host, host+size) of one RAM page were or will be written: drop translations of
    them.
    """
    cpu = CPU.view(base)
    index = (host - cpu.ram) >> 12
    mask = load(cpu.page_code + index * 8, "i64")
    if likely(mask == 0):
        return
    first = (host & PAGE) >> 6
    last = ((host + size - 1) & PAGE) >> 6
    span = (u64(-1) << first) & (u64(-1) >> (63 - last))
    if (mask & span) != 0:
        drop_page(base, index)


@fn("ptr", "i64")
def drop_page(base: Any, index: Any) -> None:
    """Drop every block that has bytes in RAM page `index`: its entry becomes a jump to its way out.

    A block is a record of 8 words (see translate.py): 0 next in hash, 1 physical pc, 2 virtual pc,
    3 mode, 4 code, 5 page lists (two i32), 6 next in those lists (two i32), 7 out stub.
    """
    cpu = CPU.view(base)
    cpu.n_drops = cpu.n_drops + 1
    n = load(cpu.page_head + index * 8, "i64")
    while n != 0:
        which = n & 1
        block = cpu.blocks + (n >> 1) * 64
        code = load(block + 32, "i64")
        out = load(block + 56, "i64")
        store(code, u8(0xE9))
        store(code + 1, (out - code - 5).tr(32))
        store(block + 8, u64(-1))
        store(block + 24, u64(-1))
        n = load(block + 48 + which * 4, "i32").zx(64)
    store(cpu.page_head + index * 8, u64(0))
    store(cpu.page_code + index * 8, u64(0))


@fn("ptr", "i64", "i64", "i64", ret="i32")
def access_done(base: Any, phys: Any, size: Any, icount: Any) -> Any:
    """Was the next device access of this instruction already made?  1, and acc_value of the slot
    counts.

    A device access leaves generated code, Python makes it, and the instruction runs again:
    `accesses`
    are those made so far by the instruction that retires as number `icount`.
    """
    cpu = CPU.view(base)
    if cpu.acc_icount != icount:
        cpu.acc_icount = icount
        cpu.acc_count = 0
        cpu.acc_cursor = 0
    if cpu.acc_cursor < cpu.acc_count:
        cpu.acc_cursor = cpu.acc_cursor + 1
        return u32(1)
    cpu.acc_cursor = 0
    cpu.exit_info[0] = phys
    cpu.exit_info[1] = size
    return u32(0)


@inline
def bounce_at(cpu: Any, pos: Any) -> Any:
    return address_of(cpu.bounce.at(0)) + pos


@inline
def copy_bytes(src: Any, dst: Any, n: Any) -> None:
    """A short byte copy."""
    i = u64(0)
    while i < n:
        store(dst + i, load(src + i, "i8"))
        i += 1


@inline
def piece_size(addr: Any, left: Any) -> Any:
    """Largest power of two up to 8 that fits in `left` bytes and in the page."""
    room = 0x1000 - (addr & PAGE)
    n = select(left < room, left, room)
    return select(n >= 8, u64(8), select(n >= 4, u64(4), select(n >= 2, u64(2), u64(1))))


@fn("ptr", "i32", "i64", "i64", "i64", ret="i64")
def slow_load(base: Any, mmu: Any, addr: Any, size: Any, icount: Any) -> Any:
    """Read `size` (up to 64) bytes anywhere; host address of them (guest RAM or the bounce buffer),
    or 0.
    """
    cpu = CPU.view(base)
    host = probe(base, addr, READ, mmu)
    note_watch(cpu, base, addr, size, WATCH_READ, icount)
    crossing = ((addr & PAGE) + size) > 0x1000
    if host == 0 and cpu.exit_reason == EXIT_EXCEPTION:
        return u64(0)
    if host != 0 and not crossing:
        return host
    if crossing:
        second = probe(base, (addr + size - 1) & ~PAGE, READ, mmu)
        if second == 0 and cpu.exit_reason == EXIT_EXCEPTION:
            return u64(0)
    pos = u64(0)
    while pos < size:
        at = addr + pos
        n = piece_size(at, size - pos)
        host = probe(base, at, READ, mmu)
        if host != 0:
            copy_bytes(host, bounce_at(cpu, pos), n)
        else:
            phys = cpu.walk_page | (at & PAGE)
            if access_done(base, phys, n, icount) == 0:
                made = u32(0)
                if cpu.slow_icount == icount:
                    made = polled(base, phys, n, icount, cpu.rip)
                if made == 0:
                    cpu.exit_reason = EXIT_MMIO
                    cpu.exit_info[2] = 0
                    return u64(0)
            store(bounce_at(cpu, pos), cpu.acc_value[cpu.acc_cursor - 1])
        pos += n
    return bounce_at(cpu, u64(0))


@fn("ptr", "i32", "i64", "i64", ret="i32")
def slow_probe_write(base: Any, mmu: Any, addr: Any, size: Any) -> Any:
    """May `size` bytes at `addr` be written?  1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    if probe(base, addr, WRITE, mmu) == 0 and cpu.exit_reason == EXIT_EXCEPTION:
        return u32(0)
    if ((addr & PAGE) + size) > 0x1000:
        if (
            probe(base, (addr + size - 1) & ~PAGE, WRITE, mmu) == 0
            and cpu.exit_reason == EXIT_EXCEPTION
        ):
            return u32(0)
    return u32(1)


@fn("ptr", "i32", "i64", "i64", "i64", "i64", ret="i32")
def slow_store(base: Any, mmu: Any, addr: Any, source: Any, size: Any, icount: Any) -> Any:
    """Write `size` bytes from host address `source` anywhere; 1, or 0 if the instruction must stop
    here.
    """
    cpu = CPU.view(base)
    if slow_probe_write(base, mmu, addr, size) == 0:
        return u32(0)
    note_watch(cpu, base, addr, size, WATCH_WRITE, icount)
    pos = u64(0)
    while pos < size:
        at = addr + pos
        n = piece_size(at, size - pos)
        host = probe(base, at, WRITE, mmu)
        if host != 0:
            wrote_code(base, host, n)
            copy_bytes(source + pos, host, n)
        else:
            phys = cpu.walk_page | (at & PAGE)
            if access_done(base, phys, n, icount) == 0:
                cpu.exit_reason = EXIT_MMIO
                cpu.exit_info[2] = 1
                value = load(source + pos, "i8").zx(64)
                if n == 8:
                    value = load(source + pos, "i64")
                elif n == 4:
                    value = load(source + pos, "i32").zx(64)
                elif n == 2:
                    value = load(source + pos, "i16").zx(64)
                cpu.exit_info[3] = value
                return u32(0)
        pos += n
    return u32(1)


@inline
def mmu_of(cpu: Any, tlb: Any) -> Any:
    """The `mmu` number of a TLB pointer."""
    return ((tlb - address_of(cpu.tlbs.at(0))) // TLB_BYTES).tr(32)


@fn("ptr")
def flush_jump_cache_low(base: Any) -> None:
    """Forget the jump cache of the lower half of the address space."""
    cpu = CPU.view(base)
    clear(cpu.jc.at(0), JC_BYTES)


@fn("ptr")
def flush_jump_cache_high(base: Any) -> None:
    """Forget the jump cache of the upper half, and the set of executed pages."""
    cpu = CPU.view(base)
    clear(cpu.jc.at(JC_BYTES // 8), JC_BYTES)
    clear(cpu.exec_bloom.at(0), 64 * 8, 0)
    cpu.exec_high_nonglobal = 0


@inline
def clear(at: Any, size: int, value: int = -1) -> None:
    """Fill memory, by default with ones (a key or tag that never matches)."""
    p = address_of(at)
    end = p + size
    while p < end:
        store(p, u64(value))
        p += 8


@fn("ptr")
def tlb_flush_all(base: Any) -> None:
    """Drop every translation, global ones too (CR0, CR4, EFER changes)."""
    cpu = CPU.view(base)
    cpu.n_flushes = cpu.n_flushes + 1
    clear(cpu.tlbs.at(0), MMU_COUNT * TLB_BYTES)
    clear(cpu.large_bloom.at(0), 16 * 8, 0)
    flush_jump_cache_low(base)
    flush_jump_cache_high(base)


@fn("ptr")
def tlb_flush(base: Any) -> None:
    """Drop the translations that are not global (a write of CR3)."""
    cpu = CPU.view(base)
    cpu.n_flushes = cpu.n_flushes + 1
    p = address_of(cpu.tlbs.at(0))
    end = p + MMU_COUNT * TLB_BYTES
    while p < end:
        if (load(p + 16, "i64") & TAG_G) == 0:
            store(p, u64(-1))
            store(p + 8, u64(-1))
            store(p + 16, u64(0xFF0) << 52)
        p += TLB_ENTRY
    flush_jump_cache_low(base)
    if cpu.exec_high_nonglobal != 0:
        flush_jump_cache_high(base)


@fn("ptr", "i64")
def tlb_flush_page(base: Any, vaddr: Any) -> None:
    """INVLPG."""
    cpu = CPU.view(base)
    vpage = vaddr & ~PAGE
    for mmu in range(MMU_COUNT):
        entry = tlb_entry(cpu, u32(mmu), vaddr)
        if (load(entry + 16, "i64") & ~PAGE) == vpage:
            store(entry, u64(-1))
            store(entry + 8, u64(-1))
            store(entry + 16, u64(0xFF0) << 52)
    region = (vaddr >> 30) & 1023
    if unlikely((cpu.large_bloom[region >> 6] & (u64(1) << (region & 63))) != 0):
        p = address_of(cpu.tlbs.at(0))
        end = p + MMU_COUNT * TLB_BYTES
        while p < end:
            tag = load(p + 16, "i64")
            if (tag & TAG_L) != 0 and (tag ^ vaddr) < (1 << 30):
                store(p, u64(-1))
                store(p + 8, u64(-1))
                store(p + 16, u64(0xFF0) << 52)
            p += TLB_ENTRY
        flush_jump_cache_low(base)
        flush_jump_cache_high(base)
    word, bit = bloom_slot(vpage)
    if (cpu.exec_bloom[word] & bit) != 0:
        flush_jump_cache_low(base)
        flush_jump_cache_high(base)


@fn("ptr", "i64")
def forget_writable(base: Any, host_page: Any) -> None:
    """A RAM page begins to hold translated code: writes to it take the slow path."""
    cpu = CPU.view(base)
    p = address_of(cpu.tlbs.at(0))
    end = p + 3 * TLB_BYTES
    while p < end:
        tag = load(p + 8, "i64")
        if (tag & ~MARKS) + load(p + 24, "i64") == host_page:
            store(p + 8, tag | HELD)
        p += TLB_ENTRY
