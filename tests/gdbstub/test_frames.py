"""The table of frames that gdb reads as memory."""

from __future__ import annotations

import pytest

from tests.gdbstub.test_stub import ask
from workbench.gdbstub.frames import FIRST, LENGTH
from workbench.gdbstub.stub import Stub
from workbench.gdbstub.target import ReplayTarget
from workbench.trace.timeline import Timeline


@pytest.fixture
def stub(timeline: Timeline) -> Stub:
    timeline.seek(20_000)  # in 64-bit mode
    return Stub(ReplayTarget(timeline))


def test_a_guest_without_tables_has_no_frames(stub: Stub) -> None:
    assert ask(stub, b"m%x,8" % FIRST) == b"00" * 8
    assert ask(stub, b"m%x,%x" % (FIRST, LENGTH)) == b"00" * LENGTH


def test_beside_the_table_there_is_nothing(stub: Stub) -> None:
    assert ask(stub, b"m%x,8" % (FIRST - 8)) == b"E14"
    assert ask(stub, b"m%x,8" % (FIRST + LENGTH)) == b"E14"
    assert ask(stub, b"m%x,8" % (FIRST + LENGTH - 4)) == b"00" * 4
    assert ask(stub, b"M%x,1:00" % FIRST) == b"E14"
