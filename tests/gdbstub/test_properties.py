"""Whatever a debugger does, it is the same run: thousands of random actions, then the digests."""

import random

import pytest

from tests.gdbstub.test_stub import ask
from workbench.gdbstub.registers import LAYOUTS, X86_64, plain_names
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.eventwatch import DmaWatch, EventWatch, IrqWatch, RequestWatch
from workbench.trace.reader import Trace
from workbench.trace.timeline import Timeline

NAMES = plain_names(LAYOUTS[X86_64])
EVENTS: tuple[EventWatch, ...] = (
    IrqWatch("IRQ0", True, "irq"), RequestWatch("", "any"), DmaWatch(0, 1 << 30, "dma", True),
)  # fmt: skip


def condition(rng: random.Random) -> bytes:
    """A bit of a register that may be none of 64 bits."""
    return bytes((0x26, 0, rng.randrange(20), 0x22, 1 << rng.randrange(6), 0x0F, 0x27))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_thousands_of_random_actions(trace: Trace, timeline: Timeline, seed: int) -> None:
    rng = random.Random(seed)
    cpu = timeline.machine.cpu
    timeline.condition_registers = NAMES
    seen: dict[int, int] = {}
    pcs = [0]
    for _ in range(1500):
        if rng.random() < 0.2:
            timeline.breakpoints = set(rng.sample(pcs, min(len(pcs), rng.randrange(4))))
            chosen = [at for at in timeline.breakpoints if rng.random() < 0.5]
            timeline.conditions = {at: (condition(rng),) for at in chosen}
            stack = cpu.get("rsp") & ~7
            timeline.watches = [(stack - 64, stack, rng.choice([1, 2, 3]))] * rng.randrange(2)
            timeline.set_device_watches(rng.sample(EVENTS, rng.randrange(2)))
        match rng.randrange(12):
            case 0:
                timeline.seek(rng.randrange(timeline.end_icount))
                pcs = [*pcs[-20:], cpu.get("rip")]
            case 1 | 2 | 3:
                timeline.step(rng.randrange(1, 200))
            case 4 | 5:
                timeline.step_back(rng.randrange(1, 200))
            case 6:
                timeline.step_masked()
            case 7:
                timeline.go(until=timeline.icount + rng.randrange(50_000))
            case 8 if rng.random() < 0.2:
                timeline.go_back()
            case 9:
                timeline.divert()
                cpu.set("rax", rng.getrandbits(64))
                timeline.step(rng.randrange(1, 100))
                timeline.drop_diversion()
            case 10:
                timeline.seek_event("accesses", back=rng.random() < 0.5)
            case _:
                timeline.step()
        if timeline.diverted is None and not timeline._ended:
            pc = cpu.get("rip")
            assert seen.setdefault(timeline.icount, pc) == pc
    timeline.breakpoints, timeline.watches, timeline.conditions = set(), [], {}
    timeline.set_device_watches([])
    places = rng.sample(sorted(seen), 3)
    for icount in places:
        timeline.seek(icount)
        fresh = Timeline(trace)
        fresh.machine.run(icount)
        assert timeline.machine.digest() == fresh.machine.digest()
    assert timeline.go().kind == "end"
    assert trace.end is not None
    assert timeline.machine.digest().hex() == trace.end.digest


@pytest.mark.slow
def test_thousands_of_random_packets(trace: Trace, timeline: Timeline) -> None:
    """The same by way of the protocol: what a debugger asks, sets, writes and looks at."""
    rng = random.Random(5)
    stub = Stub(ReplayTarget(timeline))
    ask(stub, b"QStartNoAckMode")
    stub.framing.acks = False
    cpu = timeline.machine.cpu
    looks = (
        "info irq", "info cpu", "info tlb", "info mem", "info registers", "info msr", "info timers",
        "when", "log 3", "x 0x100000 32", "checkpoint", "info devices", "complete wa", "help",
    )  # fmt: skip
    seen: dict[int, bytes] = {}
    for _ in range(2000):
        stack = cpu.get("rsp") & 0xFFFF_FFF8
        match rng.randrange(14):
            case 0 | 1 | 2:
                ask(stub, rng.choice((b"s", b"vCont;s:1")))
            case 3 | 4:
                ask(stub, b"bs")
            case 5:
                place = rng.randrange(timeline.end_icount)
                ask(stub, b"qRcmd," + f"seek {place}".encode().hex().encode())
            case 6 | 7:
                ask(stub, b"qRcmd," + rng.choice(looks).encode().hex().encode())
            case 8:
                kind, place = rng.choice((0, 1)), timeline.machine.cpu.linear_pc
                assert ask(stub, b"Z%d,%x,1" % (kind, place)) == b"OK"
            case 9:
                stub.points.clear()
                ask(stub, b"Z2,%x,8" % stack)
            case 10:
                ask(stub, b"m%x,20" % rng.choice((stack, 0x100000, rng.getrandbits(64))))
                assert len(ask(stub, b"g")) == 2 * stub.layout.bytes
            case 11:
                ask(stub, b"M%x,4:%08x" % (stack, rng.getrandbits(32)))
                ask(stub, b"s")
                ask(stub, b"qRcmd," + b"drop".hex().encode())
            case 12:
                watch = rng.choice(("com1.THR write", "irq IRQ0 high count 2", "com1.LSR count 9"))
                ask(stub, b"qRcmd," + f"watch {watch}".encode().hex().encode())
                assert ask(stub, rng.choice((b"c", b"c", b"bc")))[:1] == b"T"
                ask(stub, b"qRcmd," + b"unwatch".hex().encode())
            case _:
                ask(stub, b"qXfer:features:read:target.xml:0,100")
        if timeline.diverted is None and b"replaylog" not in stub._last_stop:
            state = ask(stub, b"g")
            assert seen.setdefault(timeline.icount, state) == state
    stub.points.clear()
    ask(stub, b"qRcmd," + b"drop".hex().encode())
    assert b"replaylog:end" in ask(stub, b"c")
    assert trace.end is not None
    assert timeline.machine.digest().hex() == trace.end.digest
