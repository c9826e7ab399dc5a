"""The rules that every device keeps, as functions over a `Case`; `test_conformance.py` runs them.

A new device joins by one line in `CASES`: its name, how to build it on a `Rig`, and its windows if
it has no `windows()`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.core.bus import Window
from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.core.state import StateError
from workbench.hw.debugcon import DebugCon
from workbench.hw.debugexit import DebugExit
from workbench.hw.fw_cfg import FwCfg
from workbench.hw.i8042 import I8042
from workbench.hw.i8254 import I8254
from workbench.hw.i8259 import I8259Pair
from workbench.hw.mc146818 import MC146818
from workbench.hw.port61 import Port61
from workbench.hw.port80 import Port80
from workbench.hw.port92 import Port92
from workbench.hw.uart16550 import Uart16550

EPOCH_S = 1_700_000_000


@dataclass
class Rig:
    """What a board gives to a device, recording every edge and call."""

    clock: Clock = field(default_factory=Clock)
    events: list[tuple[Any, ...]] = field(default_factory=list)

    def line(self, name: str) -> IrqLine:
        return IrqLine(name, lambda level: self.events.append((name, level)))

    def call(self, name: str) -> Callable[..., None]:
        return lambda *args: self.events.append((name, *args))


def _windows(device: Any) -> Sequence[Window]:
    result: Sequence[Window] = device.windows()
    return result


@dataclass(frozen=True)
class Case:
    """One device: `build` makes it, `windows` shows it, `poke` does what its host side can do."""

    name: str
    build: Callable[[Rig], Any]
    windows: Callable[[Any], Sequence[Window]] = _windows
    poke: Callable[[Any, random.Random], object] = lambda device, rng: None


class _PitAndPort61(Port61):
    """Port 0x61 has no life of its own: the state of both, so that the gate is part of the test."""

    def __init__(self, rig: Rig) -> None:
        self.pit = I8254(rig.clock, rig.line("IRQ0"))
        super().__init__(self.pit)

    def windows(self) -> tuple[Window, ...]:
        return (*self.pit.windows(), *super().windows())

    def save(self) -> dict[str, Any]:
        return {"pit": self.pit.save(), "port": super().save()}

    def restore(self, data: dict[str, Any]) -> None:
        self.pit.restore(data["pit"])
        super().restore(data["port"])


CASES = [
    Case(
        "i8259",
        lambda rig: I8259Pair(rig.line("INTR")),
        poke=lambda pic, rng: (
            pic.acknowledge()
            if rng.random() < 0.2
            else pic.set_irq(rng.randrange(16), rng.random() < 0.5)
        ),
    ),
    Case("i8254", lambda rig: I8254(rig.clock, rig.line("IRQ0"))),
    Case("mc146818", lambda rig: MC146818(rig.clock, rig.line("IRQ8"), EPOCH_S, 64 << 20)),
    Case(
        "uart16550",
        lambda rig: Uart16550("com1", 0x3F8, rig.line("IRQ4"), rig.call("output")),
        poke=lambda uart, rng: uart.receive(rng.choice(("rx", "break")), rng.randbytes(5)),
    ),
    Case(
        "i8042",
        lambda rig: I8042(rig.line("IRQ1"), rig.call("reset"), rig.line("A20")),
        poke=lambda kbc, rng: kbc.receive("scan", rng.randbytes(3)),
    ),
    Case("port61", _PitAndPort61),
    Case("port80", lambda rig: Port80()),
    Case("port92", lambda rig: Port92(rig.call("reset"), rig.line("A20"))),
    Case("debugexit", lambda rig: DebugExit(rig.call("exit"))),
    Case("debugcon", lambda rig: DebugCon(rig.call("output"))),
    Case(
        "fw_cfg",
        lambda rig: FwCfg(lambda gpa, n: bytes(n), rig.call("write"), rig.call("dma"), 1 << 20),
    ),
]


def exercise(case: Case, rig: Rig, device: Any, rng: random.Random, count: int) -> list[int]:
    """Random accesses, host input and time; gives the values read."""
    windows = case.windows(device)
    values = []
    for _ in range(count):
        window = rng.choice(windows)
        size = rng.choice((1, 1, 1, 2, 4))
        offset = rng.randrange(window.size)
        if offset + size > window.size:
            size = 1
        match rng.randrange(8):
            case 0 | 1 | 2:
                value = window.read(offset, size)
                assert 0 <= value < 1 << 8 * size, (case.name, offset, size, value)
                values.append(value)
                if window.regmap is not None:
                    assert window.regmap.explain(offset, size, value, write=False)
            case 3 | 4 | 5:
                value = rng.choice((rng.getrandbits(8 * size), rng.getrandbits(8 * size) & 0x7F))
                window.write(offset, size, value)
                if window.regmap is not None:
                    assert window.regmap.explain(offset, size, value, write=True)
            case 6:
                case.poke(device, rng)
            case _:
                step = 10 ** rng.randrange(3, 11)
                rig.clock.icount += rng.randrange(step) // rig.clock.ps_per_insn
                for _ in range(1000):
                    due = rig.clock.next_ps
                    if due is None or due > rig.clock.now_ps:
                        break
                    rig.clock.run_due()
    return values


def check_never_raises(case: Case, seed: int) -> None:
    rig = Rig()
    exercise(case, rig, case.build(rig), random.Random(seed), 400)


def check_round_trip(case: Case, seed: int) -> None:
    """save -> restore -> save is equal, makes no edge and no call, and the copy goes on alike."""
    rig = Rig()
    device = case.build(rig)
    exercise(case, rig, device, random.Random(seed), 200)
    saved = json.loads(json.dumps(device.save()))
    time = json.loads(json.dumps(rig.clock.save()))

    twin_rig = Rig()
    twin = case.build(twin_rig)
    twin_rig.events.clear()
    twin.restore(saved)
    twin_rig.clock.restore(time)
    assert twin_rig.events == []
    assert twin.save() == device.save() == saved
    assert twin_rig.clock.save() == rig.clock.save()

    rig.events.clear()
    more = [
        exercise(case, r, d, random.Random(seed + 1), 200)
        for r, d in ((rig, device), (twin_rig, twin))
    ]
    assert more[0] == more[1]
    assert twin_rig.events == rig.events
    assert twin.save() == device.save()


def check_deterministic(case: Case, seed: int) -> None:
    """Two devices with the same accesses are the same."""
    runs = []
    for _ in range(2):
        rig = Rig()
        device = case.build(rig)
        values = exercise(case, rig, device, random.Random(seed), 100)
        runs.append((values, rig.events, device.save()))
    assert runs[0] == runs[1]


def check_reset(case: Case, seed: int) -> None:
    """Reset after anything gives what a second reset gives."""
    rig = Rig()
    device = case.build(rig)
    exercise(case, rig, device, random.Random(seed), 200)
    device.reset()
    first = device.save()
    device.reset()
    assert device.save() == first
    exercise(case, rig, device, random.Random(seed), 50)


def damaged(value: Any, rng: random.Random) -> Any:
    """The saved form with one leaf replaced by something else of the same kind."""
    if isinstance(value, dict) and value:
        key = rng.choice(sorted(k for k in value if k not in ("kind", "version")))
        return {**value, key: damaged(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], damaged(value[at], rng), *value[at + 1 :]]
    if isinstance(value, list):
        return rng.choice(([], [0] * 40, [-1], [1 << 70]))
    if isinstance(value, str):
        return rng.choice(("", "00", "zz", "ff" * 128, "ICW9"))
    return rng.choice((-1, 0, 7, 0x100, 1 << 40, None, True))


def check_damaged_state(case: Case, seed: int) -> None:
    """A snapshot that lies is refused, or the device lives on with it; nothing else happens."""
    rng = random.Random(seed)
    rig = Rig()
    device = case.build(rig)
    exercise(case, rig, device, rng, 100)
    saved = json.loads(json.dumps(device.save()))
    for _ in range(60):
        twin_rig = Rig()
        twin_rig.clock.icount = rig.clock.icount
        twin = case.build(twin_rig)
        try:
            twin.restore(damaged(saved, rng))
        except StateError:
            continue
        exercise(case, twin_rig, twin, rng, 50)
