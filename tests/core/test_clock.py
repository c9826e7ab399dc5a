"""The clock: time from the instruction count, timers in order, skipping, state."""

from __future__ import annotations

import re

import pytest

from workbench.core.clock import Clock, Timer
from workbench.core.state import StateError


def test_time_is_count_times_rate_plus_bias() -> None:
    clock = Clock(ps_per_insn=500)
    clock.icount, clock.bias_ps = 7, 3
    assert clock.now_ps == 3503
    assert clock.now_ns == 3


def test_the_count_of_a_deadline_is_rounded_up_and_not_past() -> None:
    clock = Clock()
    timer = clock.timer("t", lambda: None)
    assert clock.next_ps is None
    timer.arm(5001)
    assert clock.next_ps == 5001
    assert clock.icount_at(5001) == 6
    clock.bias_ps = 2
    assert clock.icount_at(5001) == 5
    clock.icount = 9
    assert clock.icount_at(5001) == 9
    timer.cancel()
    assert clock.next_ps is None


def test_timers_fire_in_order_of_deadline_then_creation() -> None:
    clock = Clock()
    fired: list[str] = []
    timers = {n: clock.timer(n, lambda n=n: fired.append(n)) for n in "abc"}
    timers["c"].arm(10)
    timers["b"].arm(20)
    timers["a"].arm(20)
    clock.skip_to(19)
    clock.run_due()
    assert fired == ["c"]
    clock.skip_to(20)
    clock.run_due()
    assert fired == ["c", "a", "b"]
    assert clock.next_ps is None


def test_callback_rearms_from_the_time_it_was_due() -> None:
    clock = Clock()
    due: list[int] = []

    def tick() -> None:
        due.append(timer.fired_ps)
        timer.arm(timer.fired_ps + 100)

    timer = clock.timer("tick", tick)
    timer.arm(100)
    clock.skip_to(350)
    clock.run_due()
    assert due == [100, 200, 300]
    assert timer.deadline_ps == 400


def test_callback_may_cancel_another() -> None:
    clock = Clock()
    fired: list[str] = []
    others: list[Timer] = []
    first = clock.timer("first", lambda: [t.cancel() for t in others])
    second = clock.timer("second", lambda: fired.append("second"))
    others.append(second)
    first.arm(5)
    second.arm(5)
    clock.skip_to(5)
    clock.run_due()
    assert fired == []


def test_skip_is_never_backwards() -> None:
    clock = Clock()
    clock.icount = 10
    clock.skip_to(25_000)
    assert (clock.now_ps, clock.bias_ps) == (25_000, 15_000)
    clock.skip_to(20_000)
    assert clock.now_ps == 25_000


def test_state_round_trip_fires_nothing() -> None:
    clock = Clock()
    clock.timer("t", lambda: None).arm(77)
    clock.timer("u", lambda: None)
    clock.icount = 3
    fired: list[int] = []
    other = Clock()
    other.timer("t", lambda: fired.append(1))
    other.timer("u", lambda: fired.append(2))
    other.restore(clock.save())
    assert other.save() == clock.save()
    assert other.next_ps == 77
    assert fired == []


def test_messages() -> None:
    clock = Clock()
    clock.timer("t", lambda: None)
    with pytest.raises(ValueError, match=re.escape("expected a new timer name, not 't'")):
        clock.timer("t", lambda: None)
    with pytest.raises(ValueError, match="expected ps_per_insn >= 1, not 0"):
        Clock(0)
    with pytest.raises(StateError, match=r"expected the timers of this machine, difference: t$"):
        Clock().restore(clock.save())
    with pytest.raises(StateError, match="clock: expected ps_per_insn 1000, not 500"):
        Clock().restore(Clock(500).save())
