"""Time travel: the same states whichever way one comes."""

import random

import pytest

from workbench.core.layout import WATCH_READ, WATCH_WRITE
from workbench.core.requests import RequestEvent
from workbench.trace.eventwatch import DeviceWatch, DmaWatch, IrqWatch, RequestWatch
from workbench.trace.handlers import OverHandlers
from workbench.trace.moved import Moved
from workbench.trace.reader import Trace
from workbench.trace.timeline import Timeline


@pytest.fixture(scope="session")
def digests() -> dict[int, bytes]:
    """Digests by instruction count, from runs that never went back."""
    return {}


def digest_at(trace: Trace, icount: int, known: dict[int, bytes]) -> bytes:
    if icount not in known:
        fresh = Timeline(trace)
        fresh.machine.run(icount)
        known[icount] = fresh.machine.digest()
    return known[icount]


def test_forward_to_the_end(timeline: Timeline) -> None:
    moved = timeline.go()
    assert moved.kind == "end"
    assert timeline.trace.end is not None
    assert timeline.icount == timeline.trace.end.icount
    assert timeline.machine.digest().hex() == timeline.trace.end.digest
    assert timeline.go().kind == "end"
    assert len(timeline.checkpoints) > 5


def test_states_are_those_of_a_straight_run(
    timeline: Timeline, trace: Trace, digests: dict[int, bytes]
) -> None:
    rng = random.Random(5)
    places = [rng.randrange(trace.icount) for _ in range(6)]
    timeline.go()
    for icount in [*places, *reversed(places)]:
        timeline.seek(icount)
        assert timeline.icount == icount
        assert timeline.machine.digest() == digest_at(trace, icount, digests)


def test_random_actions_change_nothing(timeline: Timeline) -> None:
    rng = random.Random(7)
    timeline.go()
    pcs = []
    for _ in range(20):
        timeline.seek(rng.randrange(timeline.end_icount))
        pcs.append(timeline.machine.cpu.get("rip"))
    for _ in range(150):
        timeline.breakpoints = set(rng.sample(pcs, rng.randrange(4)))
        stack = timeline.machine.cpu.get("rsp") & ~7
        timeline.watches = [(stack - 64, stack, rng.choice([1, 2, 3]))] * rng.randrange(2)
        match rng.randrange(6):
            case 0:
                timeline.seek(rng.randrange(timeline.end_icount))
            case 1:
                timeline.step(rng.randrange(1, 300))
            case 2:
                timeline.step_back(rng.randrange(1, 300))
            case 3:
                timeline.go(until=timeline.icount + rng.randrange(200_000))
            case 4:
                timeline.go()
            case 5:
                timeline.go_back()
    timeline.breakpoints, timeline.watches = set(), []
    assert timeline.go().kind == "end"
    assert timeline.trace.end is not None
    assert timeline.machine.digest().hex() == timeline.trace.end.digest


def test_step_and_step_back(timeline: Timeline) -> None:
    timeline.seek(100_000)
    seen = []
    for _ in range(50):
        seen.append((timeline.icount, timeline.machine.cpu.get("rip")))
        timeline.step()
    for place in reversed(seen):
        timeline.step_back()
        assert (timeline.icount, timeline.machine.cpu.get("rip")) == place
    timeline.seek(0)
    assert timeline.step_back() == Moved("begin")


def hits(timeline: Timeline) -> list[int]:
    found = []
    while (moved := timeline.go()).kind != "end":
        found.append(timeline.icount - (moved.kind != "breakpoint"))
    return found


def hits_back(timeline: Timeline) -> list[int]:
    found = []
    while timeline.go_back().kind != "begin":
        found.append(timeline.icount)
    return found[::-1]


def test_a_breakpoint_is_hit_the_same_both_ways(timeline: Timeline) -> None:
    timeline.seek(20_000)
    timeline.breakpoints = {timeline.machine.cpu.get("rip")}
    timeline.seek(19_900)
    forward = []
    for _ in range(30):
        assert timeline.go().kind == "breakpoint"
        assert timeline.machine.cpu.get("rip") in timeline.breakpoints
        forward.append(timeline.icount)
    assert 20_000 in forward
    backward = [forward[-1]]
    for _ in range(29):
        assert timeline.go_back().kind == "breakpoint"
        assert timeline.machine.cpu.get("rip") in timeline.breakpoints
        backward.append(timeline.icount)
    assert backward[::-1] == forward


@pytest.mark.parametrize("kind", [WATCH_WRITE, WATCH_READ])
def test_a_watchpoint_is_hit_the_same_both_ways(timeline: Timeline, kind: int) -> None:
    timeline.seek(timeline.end_icount // 2)
    stack = timeline.machine.cpu.get("rsp") & ~7
    timeline.watches = [(stack - 8, stack, kind)]
    timeline.seek(timeline.end_icount // 2)
    forward = []
    for _ in range(20):
        moved = timeline.go()
        if moved.kind != "watch":
            break
        forward.append(timeline.icount - 1)
    assert forward
    backward = []
    for _ in forward:
        assert timeline.go_back().kind == "watch"
        backward.append(timeline.icount)
    assert backward[::-1] == forward


def test_a_device_register_is_watched_both_ways(timeline: Timeline) -> None:
    watch = DeviceWatch("com1", 0, 1, reads=False, writes=True, mask=0xFF, value=0x0A, text="lf")
    timeline.set_device_watches([watch])
    forward = hits(timeline)
    accesses = timeline.trace.accesses.to_pylist()
    logged = [
        a["icount"]
        for a in accesses
        if (a["device"], a["offset"], a["write"], a["value"]) == ("com1", 0, True, 0x0A)
    ]
    assert forward == logged
    assert hits_back(timeline) == logged


def test_writing_opens_a_diversion(timeline: Timeline, digests: dict[int, bytes]) -> None:
    timeline.seek(100_000)
    before = timeline.machine.digest()
    timeline.divert()
    timeline.machine.cpu.set("rax", 0x1234)
    timeline.machine.memory.write(0x2000, b"poked")
    timeline.step(10)
    assert timeline.diverted == 100_000
    assert timeline.machine.digest() != before
    timeline.step_back()
    assert timeline.diverted is None
    assert timeline.icount == 100_000
    assert timeline.machine.digest() == before


def test_the_budget_is_kept(trace: Trace) -> None:
    timeline = Timeline(trace, budget_bytes=3 << 20)
    kept = timeline.kept
    kept.spacing_icount, kept.saving_share, kept.gap_s = 20_000, 1e9, 0
    timeline.go()
    assert timeline.kept.used_bytes <= 3 << 20
    assert 2 < len(timeline.checkpoints) < 200
    assert timeline.kept.spacing_icount > 20_000


@pytest.mark.parametrize("budget_bytes", [0, 900_000, 1_200_000])
def test_a_tiny_budget_is_kept_and_all_works(
    trace: Trace, budget_bytes: int, digests: dict[int, bytes]
) -> None:
    timeline = Timeline(trace, budget_bytes=budget_bytes)
    kept = timeline.kept
    kept.spacing_icount, kept.saving_share, kept.gap_s = 20_000, 1e9, 0
    least = timeline.kept.used_bytes
    timeline.go()
    for icount in (1_500_000, 700_000, 900_000, 100_000):
        timeline.seek(icount)
        timeline.step_back(3)
        assert timeline.icount == icount - 3
        assert timeline.machine.digest() == digest_at(trace, icount - 3, digests)
        assert timeline.kept.used_bytes <= max(budget_bytes, least)
    timeline.watches = [(0, 1, WATCH_WRITE)]
    assert timeline.go_back() == Moved("begin")


def test_steps_pass_over_interrupt_handlers(timeline: Timeline) -> None:
    counts, pcs = OverHandlers(timeline).interrupts()
    assert counts
    for icount, pc in list(zip(counts, pcs, strict=True))[:5]:
        timeline.seek(icount)
        cpu = timeline.machine.cpu
        assert cpu.get("rip") == pc
        stack = cpu.get("rsp")
        timeline.step()
        handler = cpu.get("rip")
        timeline.seek(icount)
        assert timeline.step_masked() == Moved("icount")
        assert timeline.icount > icount + 1
        assert abs(cpu.get("rip") - pc) < 0x100
        assert cpu.get("rip") != handler
        assert abs(cpu.get("rsp") - stack) <= 16
        timeline.step_back_masked()
        assert (cpu.get("rip"), cpu.get("rsp")) == (pc, stack)


def test_the_last_writer(timeline: Timeline) -> None:
    timeline.seek(timeline.end_icount // 2)
    stack = timeline.machine.cpu.get("rsp") & ~7
    before = timeline.icount, timeline.machine.digest()
    found = timeline.last_write(stack - 8, 8)
    assert found is not None
    assert found[0] < timeline.icount
    assert (timeline.icount, timeline.machine.digest()) == before
    old = timeline.machine.memory.read(stack - 8, 8)
    timeline.seek(found[0] + 1)
    assert timeline.machine.memory.read(stack - 8, 8) == old
    assert timeline.last_write(0x30_0000, 1) is None


def test_transfers_are_compared(timeline: Timeline) -> None:
    """The demo has no device that masters the bus: the observer is told of transfers by hand."""
    watch = DmaWatch(0x5000, 0x10, "dma 0x5000 16")
    timeline.set_device_watches([watch])
    log = timeline._log
    assert log in timeline.machine.observers
    log.stopping = False
    for gpa, length, is_write in ((0x4FF0, 0x10, True), (0x5010, 4, True), (0x5000, 4, False)):
        log.on_dma("ide", gpa, length, is_write, 7)
        assert log.last is None
    log.on_dma("ide", 0x4FF0, 0x11, True, 8)
    assert log.last == (8, watch, None)
    timeline.set_device_watches([])
    assert log not in timeline.machine.observers


def test_an_interrupt_line_is_watched_the_same_both_ways(timeline: Timeline) -> None:
    lines = timeline.trace.table("irq_lines", ("icount", "name", "level"))
    rows = list(
        zip(*(lines[name].to_pylist() for name in ("icount", "name", "level")), strict=True)
    )
    name = rows[0][1]
    places = [icount for icount, line, level in rows if line == name and level]
    timeline.set_device_watches([IrqWatch(name, True, "irq")])
    seen = []
    while (moved := timeline.go()).kind == "access":
        assert moved.text == "irq"
        seen.append(timeline.icount - 1)
    assert seen == places
    timeline.seek(timeline.end_icount)
    back = []
    while timeline.go_back().kind == "access":
        back.append(timeline.icount)
    assert back[::-1] == places


@pytest.mark.parametrize("count", [2, 7])
def test_a_watch_counts_from_where_a_move_begins(timeline: Timeline, count: int) -> None:
    table = timeline.trace.table("accesses", ("icount", "device", "write"))
    names = ("icount", "device", "write")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    places = [icount for icount, device, write in rows if device == "com1" and write][:50]
    watch = DeviceWatch("com1", 0, 8, False, True, 0, 0, "writes", count)
    timeline.set_device_watches([watch])
    seen = []
    while len(seen) < 5 and timeline.go().kind == "access":
        seen.append(timeline.icount - 1)
    assert seen == places[count - 1 :: count][:5]
    timeline.seek(places[-1] + 1)  # with short stretches, so that it counts over several
    back = []
    while timeline.go_back() == Moved("access", text="writes"):
        back.append(timeline.icount)
    assert back == places[::-1][count - 1 :: count]


def asked(device: str, kind: str, address: int, length: int) -> RequestEvent:
    return RequestEvent(device, 1, "begin", kind, address=address, length=length)


def test_requests_are_compared() -> None:
    watch = RequestWatch("ide0", "text", (100, 107), "read", (512, 4096))
    assert watch.matches(asked("ide0", "READ DMA EXT", 96, 4096))
    assert not watch.matches(asked("ide0", "READ DMA EXT", 96, 2048))
    assert not watch.matches(asked("ide0", "READ DMA EXT", 108, 512))
    assert not watch.matches(asked("ide0", "WRITE DMA", 100, 512))
    assert not watch.matches(asked("ide1", "READ DMA EXT", 100, 512))
    assert not watch.matches(asked("ide0", "READ DMA EXT", 100, 8192))
    assert RequestWatch("", "any").matches(asked("net0", "tx", 0, 60))


def test_the_next_and_the_previous_event_of_a_table(timeline: Timeline) -> None:
    rows = timeline.trace.table("accesses", ("icount", "device", "write"))
    names = ("icount", "device", "write")
    every = list(zip(*(rows[name].to_pylist() for name in names), strict=True))
    wanted = [icount for icount, device, write in every if device == every[0][1] and write]
    forward = []
    timeline.seek(0)
    while len(forward) < 5:
        moved = timeline.seek_event(
            "accesses", where=lambda row: row["device"] == every[0][1] and row["write"]
        )
        if moved.kind == "end":
            break
        forward.append(timeline.icount)
    assert forward
    assert forward == sorted(set(wanted) - {0})[: len(forward)]
    assert timeline.seek_event("accesses", back=True, where=lambda row: False) == Moved("begin")
    for icount in forward[-2::-1]:
        timeline.seek_event(
            "accesses", back=True, where=lambda row: row["device"] == every[0][1] and row["write"]
        )
        assert timeline.icount == icount


def test_who_wrote_last(timeline: Timeline) -> None:
    timeline.seek(timeline.end_icount // 2)
    stack = timeline.machine.cpu.get("rsp")
    before = timeline.machine.digest()
    write, writer = timeline.last_write(stack, 8), timeline.last_writer(stack, 8, stack)
    assert write is not None
    assert writer is not None
    assert (writer.icount, writer.device, writer.pc) == (write[0], "", write[1])
    assert timeline.machine.digest() == before
