"""Checkpoints of one machine: what they take, and when one is made."""

from __future__ import annotations

import random

import pytest

from workbench.core.config import MachineConfig
from workbench.core.engine import PAGE
from workbench.core.machine import Machine
from workbench.core.pages import PageStore
from workbench.firmware import demo
from workbench.trace.checkpoints import EXPLORING_SHARE, Checkpoints
from workbench.trace.guest import Guest, build_machine

RAM_BYTES = 16 << 20


@pytest.fixture
def machine() -> Machine:
    config = MachineConfig(ram_bytes=RAM_BYTES, rtc_epoch_s=0, seed=1)
    built = build_machine(config.to_json(), Guest(demo.image(), kernel_path="demo.elf"))
    assert isinstance(built, Machine)
    return built


def dirty(machine: Machine, pages: int, rng: random.Random) -> None:
    """What a guest would: so many pages at random get other bytes, beside those of its code."""
    for page in rng.sample(range(2 << 20, RAM_BYTES, PAGE), pages):
        machine.memory.write(page, rng.randbytes(16))


@pytest.mark.parametrize("budget_bytes", [0, 1 << 20, 6 << 20, 40 << 20])
def test_no_state_is_saved_before_there_is_room(
    machine: Machine, budget_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Checkpoints(machine, budget_bytes, gap_s=0, spacing_icount=1000)
    limit = max(budget_bytes, kept.used_bytes)
    most = 0
    put = PageStore.put

    def watched(store: PageStore, *args: object) -> list[int]:
        nonlocal most
        slots = put(store, *args)  # type: ignore[arg-type]
        most = max(most, kept.used_bytes)
        return slots

    monkeypatch.setattr(PageStore, "put", watched)
    rng = random.Random(3)
    spares = []
    for n in range(1, 60):
        machine.run(n * 2000)
        dirty(machine, rng.choice((3, 300, 3000)), rng)
        kept.ran(1.0)
        kept.keep()
        kept.keep_near()
        if n % 20 == 0:
            spares.append(kept.spare())
            spares = spares[-1:]
        assert kept.used_bytes <= limit
        if n % 7 == 0:
            below = kept.nearest(machine.clock.icount - 3000)
            machine.restore(below)
    assert most <= limit
    assert len(kept.icounts()) == 1 or budget_bytes
    if budget_bytes == 40 << 20:
        assert len(kept.icounts()) > 3


def test_memory_asked_for_ahead_stays_within_the_budget(machine: Machine) -> None:
    kept = Checkpoints(machine, 12 << 20, gap_s=1e9)
    rng = random.Random(1)
    for pages in (1000, 2000, 3500):
        dirty(machine, pages, rng)
        kept.keep()
    store = machine.pages
    assert store.put_aside_bytes + store.used_bytes <= (12 << 20) + (8 << 20)


def test_saving_is_paid_for_by_time_that_ran(machine: Machine) -> None:
    kept = Checkpoints(machine, gap_s=0.01, spacing_icount=1000)
    for n in range(1, 100):
        machine.run(n * 2000)
        kept.keep()  # no time has passed
    assert len(kept.icounts()) == 1
    kept.ran(5.0)
    kept.keep()
    assert len(kept.icounts()) == 2


def test_a_dear_state_waits_until_running_takes_longer(machine: Machine) -> None:
    rng = random.Random(1)
    kept = Checkpoints(machine, gap_s=0.001, spacing_icount=1000)
    kept.ran(1000.0)
    machine.run(2000)
    kept.keep()
    assert len(kept.icounts()) == 2
    dirty(machine, 3000, rng)
    machine.run(10_000)
    kept.ran(0.002)
    kept.keep()
    assert len(kept.icounts()) == 2
    kept.ran(0.002 / EXPLORING_SHARE + 0.01, exploring=True)
    kept.keep()
    assert len(kept.icounts()) == 3
