"""A process goes through the log, and finds what this one would find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.tui.conftest import DEMO
from workbench.errors import WorkbenchError
from workbench.trace.reader import Trace, open_trace
from workbench.trace.symbols import SymbolTable
from workbench.tui import apart, language
from workbench.tui.log import COLUMNS, AccessLog
from workbench.tui.matches import Matches, columns
from workbench.tui.session import Session
from workbench.tui.worker import Inline

FILTERS = (
    "device=com1 and write",
    "lsr or not (mmio or cfg)",
    "register=LSR and fields=*THRE=1*",
    "value&0x20 count>50% row>3 times=1 pc!=0 addr>0 offset<8 size=1 kind=pio",
    "function=main or request=x/1",
)


def never() -> bool:
    return False


def made(trace: Trace) -> Session:
    names = SymbolTable([(0, "T", "start"), (0x10_0000, "T", "main")])
    return Session(trace, lambda name, failed: Inline(failed), symbols=names)


@pytest.fixture
def session(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """One whose log is gone through by a process."""
    monkeypatch.setattr(apart, "LEAST_BLOCKS", 1)
    session = made(trace)
    yield session
    session.close()


def test_it_finds_the_same(trace: Trace, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    here = made(trace)
    for one in (session, here):
        one.start(build=False)
        assert one.log.indexed == one.log.blocks
        for text in FILTERS:
            one.set_filter(text)
            assert one.matches.known
            found.append((text, one.matches.known, one.matches.rows(0).tolist()))
        monkeypatch.setattr(apart, "LEAST_BLOCKS", 1 << 30)
    half = len(FILTERS)
    assert found[:half] == found[half:]
    assert session.log.state(1) == here.log.state(1)
    assert session.density.counts.keys() == here.density.counts.keys()
    for name, counts in here.density.counts.items():
        assert np.array_equal(session.density.counts[name], counts)


def test_this_process_reads_nothing_for_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.start(build=False)

    def read(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(AccessLog, "_read", read)
    monkeypatch.setattr(Trace, "piece", read)
    session.set_filter("lsr")
    assert session.matches.complete
    assert session.matches.known


def test_when_it_is_gone_this_one_goes_on(session: Session) -> None:
    session.set_filter("lsr")
    known = session.matches.known
    process = session.apart._process
    process.kill()
    process.join()
    session.set_filter("device=com1")
    session.set_filter("lsr")
    assert session.matches.complete
    assert session.matches.known == known
    session.start(build=False)
    assert session.log.indexed == session.log.blocks


def test_what_is_wrong_is_told_here(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.set_filter("write")

    def piece(*args: object) -> None:
        raise WorkbenchError("damaged")

    monkeypatch.setattr(session.trace, "piece", piece)
    with pytest.raises(WorkbenchError, match="damaged"):
        session.apart.count(5, 6, 100)  # there is no such piece there either


@pytest.mark.parametrize("text", FILTERS)
def test_only_the_columns_that_are_asked_for_are_read(trace: Trace, text: str) -> None:
    node = language.parse(text, trace.icount)
    some = columns(node)
    assert some <= set(COLUMNS)
    found = [Matches(AccessLog(trace, which), node).rows(0).tolist() for which in (some, COLUMNS)]
    assert found[0] == found[1]


def test_it_ends_with_this_one(session: Session) -> None:
    session.set_filter("write")
    process = session.apart._process
    assert Path(f"/proc/{process.pid}").exists()
    session.close()
    assert not process.is_alive()


def test_a_filter_that_was_set_too_early_begins_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_trace(DEMO.parent / "v2-ata.wbt") as trace:
        early = Session(trace, lambda name, failed: Inline(failed))
        for text in ("request=ide0*", "register=STATUS"):
            late = Session(trace, lambda name, failed: Inline(failed))
            late.start(build=False)
            late.set_filter(text)
            early.set_filter(text)
            guessed = early.matches
            early.start(build=False)
            assert early.matches is not guessed
            assert early.matches.known == late.matches.known > 0
