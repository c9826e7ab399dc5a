"""The accesses that somebody wants: those that a plain loop finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import analysis
from tests.trace import guests
from workbench.core.config import MachineConfig
from workbench.trace import chosen, tables
from workbench.trace.chosen import Filter
from workbench.trace.decode import Decoder, Register
from workbench.trace.reader import Trace, open_trace
from workbench.trace.session import Recording


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Accesses to many chips, in pieces of 31."""
    folder = tmp_path_factory.mktemp("chosen")
    config = MachineConfig(ram_bytes=32 << 20, seed=1, rtc_epoch_s=1_767_225_600)
    Recording(str(folder / "chips.wbt"), config.to_json(), guests.CHIPS).run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "CHUNK_ROWS", 31)
        analysis.repeat(folder / "chips.wbt", folder / "long.wbt", 600)
    return folder / "long.wbt"


def plainly(trace: Trace, wanted: Filter) -> list[tuple[int, Register]]:
    decode = Decoder(trace.header.machine).decode
    rows = zip(
        trace.accesses["seq"].to_pylist(),
        tables.event_rows(tables.BY_NAME["accesses"], trace.accesses),
        strict=True,
    )
    found = []
    for seq, (_, icount, _, kind, device, offset, size, write, value, _, _) in rows:
        register = decode(kind, device, offset, size, value, write)
        if (
            wanted.first <= icount <= wanted.last
            and wanted.device(device)
            and wanted.register(register.name)
            and wanted.write in (None, write)
        ):
            found.append((seq, register))
    return found


@pytest.mark.parametrize("devices", [(), ("rtc",), ("com1", "pic?"), ("none",)])
@pytest.mark.parametrize("registers", [(), ("*:REG?",), ("DLL", "ICW*", "+0X*")])
@pytest.mark.parametrize("write", [None, True])
@pytest.mark.parametrize("part", [(0, 1), (0.4, 0.7)])
def test_what_is_wanted(
    long: Path,
    devices: tuple[str, ...],
    registers: tuple[str, ...],
    write: bool | None,
    part: tuple[float, float],
) -> None:
    with open_trace(long) as trace:
        first, last = (int(trace.icount * each) for each in part)
        wanted = Filter(devices, registers, first, last, write)
        expected = plainly(trace, wanted)
        found = [(row[0], register) for row, register in chosen.accesses(trace, wanted)]
        assert found == expected
        for tail in (50,):
            some = [(row[0], register) for row, register in chosen.accesses(trace, wanted, tail)]
            assert some[-tail:] == expected[-tail:]
            assert len(some) < tail + 31 or not expected or part != (0, 1)


def test_pieces_before_the_first_are_read_in_a_few_columns(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, ...] | None] = []
    with open_trace(long) as trace:
        piece = trace.piece
        monkeypatch.setattr(
            trace, "piece", lambda name, n, some=None: read.append(some) or piece(name, n, some)
        )
        next(chosen.accesses(trace, Filter(first=trace.icount // 2)))
        pieces = len(trace.pieces("accesses"))
    assert read.index(None) == len(read) - 1  # all columns only where the first one is
    assert pieces // 3 < len(read) - 1 < pieces
