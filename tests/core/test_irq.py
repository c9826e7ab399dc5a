"""Interrupt lines: edges, sharing, restoring."""

from __future__ import annotations

from workbench.core.irq import IrqLine, SharedLine


def test_sink_sees_changes_only() -> None:
    seen: list[bool] = []
    line = IrqLine("IRQ4", seen.append)
    for level in (False, True, True, False):
        line.set(level)
    assert seen == [True, False]
    line.pulse()
    assert seen == [True, False, True, False]


def test_watch_gets_the_name() -> None:
    seen: list[tuple[str, bool]] = []
    line = IrqLine("IRQ4", lambda level: None)
    line.watch = lambda name, level: seen.append((name, level))
    line.set(True)
    assert seen == [("IRQ4", True)]


def test_restore_makes_no_edge() -> None:
    seen: list[bool] = []
    line = IrqLine("IRQ4", seen.append)
    line.restore(True)
    assert (line.level, seen) == (True, [])
    line.set(True)
    assert seen == []


def test_shared_line_is_the_or() -> None:
    seen: list[bool] = []
    shared = SharedLine("IRQ11", seen.append)
    a, b = shared.source("a"), shared.source("b")
    a.set(True)
    b.set(True)
    a.set(False)
    assert (shared.level, seen) == (True, [True])
    b.set(False)
    assert (shared.level, seen) == (False, [True, False])


def test_restoring_a_source_restores_the_or_without_an_edge() -> None:
    seen: list[bool] = []
    shared = SharedLine("IRQ11", seen.append)
    a, b = shared.source("a"), shared.source("b")
    a.restore(True)
    assert (shared.level, seen) == (True, [])
    b.set(True)
    a.restore(False)
    assert shared.level
    b.set(False)
    assert seen == [False]
