"""The one description of the processor's state in memory; every view of it is built from here.

Generated code, compiled helpers and Python all address the same `CPU` structure.  Numbers and names
are those of the Intel SDM volume 3; what is ours is marked so.
"""

from __future__ import annotations

from workbench.core.lang import Layout

# Order of the segment registers in the arrays below (SDM volume 2, table 2-1: sreg encoding).
ES, CS, SS, DS, FS, GS, LDTR, TR = range(8)
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
GPRS = (
    "rax",
    "rcx",
    "rdx",
    "rbx",
    "rsp",
    "rbp",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
)
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)

# EFLAGS (SDM volume 1, 3.4.3)
CF, PF, AF, ZF, SF, TF, IF, DF, OF = 1, 4, 0x10, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
IOPL, NT, RF, VM, AC, VIF, VIP, ID = (
    0x3000,
    0x4000,
    0x10000,
    0x20000,
    0x40000,
    0x80000,
    0x100000,
    0x200000,
)
ARITH = CF | PF | AF | ZF | SF | OF

CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_ET, CR0_NE, CR0_WP, CR0_AM, CR0_NW, CR0_CD, CR0_PG = (
    1,
    2,
    4,
    8,
    0x10,
    0x20,
    0x10000,
    0x40000,
    0x20000000,
    0x40000000,
    0x80000000,
)
CR4_VME, CR4_PVI, CR4_TSD, CR4_DE, CR4_PSE, CR4_PAE, CR4_MCE, CR4_PGE, CR4_PCE = (
    1,
    2,
    4,
    8,
    0x10,
    0x20,
    0x40,
    0x80,
    0x100,
)
CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_UMIP, CR4_FSGSBASE, CR4_PCIDE, CR4_OSXSAVE, CR4_SMEP, CR4_SMAP = (
    0x200,
    0x400,
    0x800,
    0x10000,
    0x20000,
    0x40000,
    0x100000,
    0x200000,
)
EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = 1, 0x100, 0x400, 0x800

# Segment attributes: the access-rights format of VMCS fields (SDM volume 3, 25.4.1).
ATTR_S, ATTR_P, ATTR_L, ATTR_DB, ATTR_G, ATTR_UNUSABLE = 0x10, 0x80, 0x2000, 0x4000, 0x8000, 0x10000

# Exceptions (SDM volume 3, table 6-1)
DE, DB, NMI, BP, OFV, BR, UD, NM, DFV, _, TS, NP, SSV, GP, PFV, _, MF, AC_V, MC, XM = range(20)

# Lazy flags (ours).  `cc_op` says how to get CF PF AF ZF SF OF out of `cc_dst` and `cc_src`:
#   CC_EFLAGS  cc_src holds the six bits themselves
#   CC_ADD     cc_dst = a + b, cc_src = b          CC_SUB  cc_dst = a - b, cc_src = b
#   CC_LOGIC   cc_dst = result; CF = OF = AF = 0   CC_EXPL ZF SF PF of cc_dst; CF AF OF in cc_src
#   CC_INC/DEC cc_dst = result; CF in bit 0 of cc_src
# plus log2 of the operand size in bytes in the low two bits: cc_op = kind * 4 + log2(size).
CC_EFLAGS, CC_ADD, CC_SUB, CC_LOGIC, CC_EXPL, CC_INC, CC_DEC = range(7)

# Reasons for leaving generated code (ours).  The first ones are handled by the compiled run loop.
(
    EXIT_NEXT,
    EXIT_SLOW,
    EXIT_EXCEPTION,
    EXIT_BUDGET,
    EXIT_IRQ,
    EXIT_PIO,
    EXIT_MMIO,
    EXIT_HLT,
    EXIT_SYSTEM,
    EXIT_TRIPLE,
    EXIT_CODE_FULL,
    EXIT_UNDEFINED,
    EXIT_BREAKPOINT,
    EXIT_WATCH,
) = range(14)
MOST_FAULTS = 1 << 16
"""So many exceptions without an instruction done between them are a row without an end."""
EXIT_NAMES = (
    "next",
    "slow",
    "exception",
    "budget",
    "irq",
    "pio",
    "mmio",
    "hlt",
    "system",
    "triple-fault",
    "code-full",
    "undefined",
    "breakpoint",
    "watch",
)

# Block mode (ours): what a translation depends on besides its bytes and address.
MODE_16, MODE_32, MODE_64 = 0, 1, 2  # bits 0-1: code size
MODE_SS32, MODE_CPL3, MODE_FLAT, MODE_SLOW, MODE_PROT = 4, 8, 16, 32, 64

TLB_BITS = 10
TLB_ENTRIES = 1 << TLB_BITS
TLB_ENTRY = 32  # tag_r, tag_w, tag_x, addend: four i64
TLB_BYTES = TLB_ENTRIES * TLB_ENTRY
# Of `trap_dropped`: no single-step trap (a software interrupt; SYSCALL that clears TF), one
# although TF was clear before (SYSRET), debug exceptions only behind the next instruction (MOV SS,
# POP SS).
TRAP_USUAL, TRAP_LOST, TRAP_MADE, TRAP_LATER = range(4)
DR6_BS = 1 << 14  # a single step
INTR_PENDING, NMI_PENDING = 1, 2  # bits of `irq_pending`
MMU_KERNEL, MMU_KERNEL_SMAP, MMU_USER = 0, 1, 2
MMU_FETCH_KERNEL, MMU_FETCH_USER = (
    3,
    4,
)  # fetches have TLBs of their own: data accesses alone decide the others
MMU_COUNT = 5
JC_BITS = 11  # jump cache: entries for each half of the address space
JC_BYTES = 16 << JC_BITS
# Marks in a TLB tag, with which the inlined path misses:
WATCHED = 0x800  # the page has a watchpoint: every access takes the slow path
HELD = 0x400  # writes: the page holds translated code, or is not yet noted as written
MARKS = WATCHED | HELD
MAX_BREAKPOINTS, MAX_WATCHES = 1 << 16, 64
COND_REGISTERS, COND_STACK = 64, 64
WATCH_WRITE, WATCH_READ = 1, 2
ACCESS_SLOTS = 8  # device accesses of one instruction that is being retried

CPU = Layout(
    "cpu",
    [
        ("gpr", "i64", 16),
        ("rip", "i64"),
        ("cc_dst", "i64"),
        ("cc_src", "i64"),
        ("cc_op", "i64"),
        ("eflags", "i64"),  # everything but the six arithmetic flags; bit 1 set
        ("budget", "i64"),  # instructions left (r13 while generated code runs)
        ("end_icount", "i64"),  # icount = end_icount - budget
        ("tlb", "i64"),  # the TLB of the current privilege (r14 in generated code)
        ("jc_key", "i64"),
        ("mode", "i32"),
        ("cpl", "i32"),
        ("exit_reason", "i32"),
        ("irq_pending", "i32"),
        ("shadow_icount", "i64"),
        ("chain_site", "i64"),  # rel32 to patch when the next block is known
        ("seg_base", "i64", 8),
        ("seg_limit", "i32", 8),
        ("seg_attr", "i32", 8),
        ("seg_sel", "i16", 8),
        ("gdtr_base", "i64"),
        ("idtr_base", "i64"),
        ("gdtr_limit", "i32"),
        ("idtr_limit", "i32"),
        ("cr0", "i64"),
        ("cr2", "i64"),
        ("cr3", "i64"),
        ("cr4", "i64"),
        ("cr8", "i64"),
        ("efer", "i64"),
        ("dr", "i64", 8),
        ("xcr0", "i64"),
        ("star", "i64"),
        ("lstar", "i64"),
        ("cstar", "i64"),
        ("sfmask", "i64"),
        ("kernel_gs_base", "i64"),
        ("tsc_aux", "i64"),
        ("sysenter_cs", "i64"),
        ("sysenter_esp", "i64"),
        ("sysenter_eip", "i64"),
        ("ps_per_insn", "i64"),
        ("bias_ps", "i64"),
        ("tsc_period_ps", "i64"),
        ("tsc_offset", "i64"),
        ("rand_state", "i64"),
        # exception or exit in flight
        ("exc_vector", "i32"),
        ("exc_error", "i32"),
        ("exc_has_error", "i32"),
        ("exc_soft", "i32"),
        ("exit_info", "i64", 6),
        ("exit_next", "i64"),
        ("exit_insn", "i64"),
        ("fault_addr", "i64"),
        ("miss_pc", "i64"),
        ("miss_budget", "i64"),
        ("miss_count", "i64"),
        # device accesses that the current instruction has already done (see accesses.py)
        ("acc_icount", "i64"),
        ("acc_count", "i32"),
        ("acc_cursor", "i32"),
        ("acc_value", "i64", 16),
        ("bounce", "i8", 64),
        # the register that may be read without leaving (see polls.py)
        ("poll_at", "i64"),
        ("poll_size", "i64"),
        ("poll_hz", "i64"),
        ("poll_add", "i64"),
        ("poll_mask", "i64"),
        ("poll_left", "i64"),
        ("poll_count", "i64"),
        ("poll_rows", "i64"),
        ("poll_cost_ps", "i64"),
        ("slow_icount", "i64"),  # of the instruction at `rip`, when it is alone in a slow block
        ("nmi_blocked", "i32"),  # until the next IRET
        # exceptions delivered one after the other without an instruction done between them
        ("fault_icount", "i64"),
        ("fault_row", "i64"),
        ("trap_dropped", "i32"),  # TRAP_...: what the instruction says about its debug exceptions
        ("max_insns", "i32"),
        # debugger: breakpoints by linear address, watched ranges [lo, hi) of linear addresses
        ("bp_count", "i32"),
        ("watch_count", "i32"),
        ("bp_log", "i32"),  # 1: hits are only counted
        ("watch_log", "i32"),
        ("bp_skip", "i64"),  # at this instruction count no breakpoint is hit
        ("entry_stop", "i32"),  # 1: stop before a handler's first instruction; 2: here is one
        ("bp_hits", "i64"),
        ("bp_last", "i64"),
        ("watch_pending", "i64"),  # a hit that the run loop has not reported: 1 + its range
        ("watch_hits", "i64"),
        ("watch_last", "i64"),
        ("watch_last_range", "i64"),
        ("bp_table", "i64"),  # host address of breakpoints, in order
        # their conditions (see conditions.py); registers by number: 1 + offset in here, 0 unknown
        ("cond_table", "i64"),
        ("cond_reg", "i32", COND_REGISTERS),
        ("cond_stack", "i64", COND_STACK),
        # behind the debugger's ranges stand those of the guest's DR0 to DR3, kind 0: none
        ("watch_lo", "i64", MAX_WATCHES + 4),
        ("watch_hi", "i64", MAX_WATCHES + 4),
        ("watch_kind", "i32", MAX_WATCHES + 4),
        ("watching", "i32"),  # is any range watched?
        ("dr_code", "i32"),  # is a code breakpoint of DR0 to DR3 on?
        ("dr_hits", "i64"),  # bits of DR6 for the data breakpoints that the instruction hit
        # x87, MMX, SSE
        ("fpr", "i128", 8),  # physical registers; 80 bits used
        ("fpu_cw", "i32"),
        ("fpu_sw", "i32"),
        ("fpu_top", "i32"),
        ("fpu_tag", "i32"),  # tag: 1 bit each, 1 = empty
        ("fpu_ip", "i64"),
        ("fpu_dp", "i64"),
        ("fpu_op", "i32"),
        ("mxcsr", "i32"),
        ("xmm", "i128", 16),
        # guest memory
        ("ram", "i64"),
        ("ram_low", "i64"),
        ("ram_high", "i64"),  # host address; bytes below and above 4 GiB
        ("rom_base", "i64"),
        ("rom_bytes", "i64"),  # guest-physical address and size of the ROM below 4 GiB
        ("rom_at", "i64"),  # its position behind RAM
        ("a20_mask", "i64"),  # what the A20 gate leaves of a physical address
        ("page_attr", "i64"),
        ("page_code", "i64"),
        ("page_head", "i64"),
        ("page_dirty", "i64"),  # arrays by RAM page (see engine.py)
        ("exec_bloom", "i64", 64),
        ("large_bloom", "i64", 16),
        ("exec_high_nonglobal", "i32"),
        # translator
        ("code_base", "i64"),
        ("code_next", "i64"),
        ("code_end", "i64"),
        ("scratch_code", "i64"),
        ("blocks", "i64"),
        ("block_count", "i64"),
        ("block_max", "i64"),
        ("block_hash", "i64"),
        ("optable", "i64"),
        ("entries", "i64"),
        ("stencils", "i64"),
        ("relocs", "i64"),
        ("symbols", "i64"),
        ("stencil_code", "i64"),
        ("insns", "i64"),
        ("stubs", "i64"),
        ("enter", "i64"),
        ("eatab", "i64"),
        ("last_bytes", "i8", 16),
        ("walk_page", "i64"),
        ("walk_flags", "i64"),
        # counters of the engine, for people
        ("n_blocks", "i64"),
        ("n_insns", "i64"),
        ("n_misses", "i64"),
        ("n_slow", "i64"),
        ("n_next", "i64"),
        ("n_chains", "i64"),
        ("n_flushes", "i64"),
        ("n_drops", "i64"),
        # jump cache (low half, then high half): key, code
        ("jc", "i64", 2 * JC_BYTES // 8),
        ("tlbs", "i64", MMU_COUNT * TLB_BYTES // 8),
    ],
)
