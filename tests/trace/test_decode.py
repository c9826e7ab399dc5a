"""Accesses become registers without a live device, and counts are those of a plain loop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bench import analysis
from tests.trace import guests
from workbench.core.config import MachineConfig
from workbench.trace import keys, stats, tables
from workbench.trace.decode import Decoder, Register
from workbench.trace.reader import Trace, open_trace
from workbench.trace.requests import Relations
from workbench.trace.session import Recording

CONFIG = MachineConfig(ram_bytes=32 << 20, seed=1, rtc_epoch_s=1_767_225_600)
MACHINE = {
    "serial_ports": ["com1"],
    "drives": [{"name": "drive0", "interface": "virtio"}],
    "nics": [{"name": "net0", "model": "e1000"}],
}


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chips") / "chips.wbt"
    Recording(str(path), CONFIG.to_json(), guests.CHIPS).run()
    return path


@pytest.mark.parametrize(
    ("kind", "device", "offset", "size", "value", "write", "name", "meaning"),
    [
        ("pio", "bmide", 0, 1, 0x09, True, "BMICP", "[SSBM=1 RWCON=1]"),
        ("pio", "com1", 5, 1, 0x60, False, "LSR", "[THRE=1 TEMT=1]"),
        ("pio", "com1", 0, 1, 0x41, True, "THR", ""),
        ("pio", "i8042-command", 0, 1, 0x20, True, "KBC_COMMAND", "[CMD=read-command-byte]"),
        ("pio", "ide0", 7, 1, 0xEC, True, "COMMAND", None),
        ("pio", "ide1.control", 0, 1, 0x08, True, "DEVICE_CONTROL", None),
        ("mmio", "net0", 0x100, 4, 2, True, "RCTL", None),
        ("cfg", "net0", 0, 2, 0x8086, False, "VENDOR_ID", ""),
        ("pio", "drive0", 18, 1, 7, True, "device_status", None),
        ("mmio", "drive0", 20, 1, 7, True, "device_status", None),
        ("cfg", "00:1f.0", 0, 4, 0xFFFFFFFF, False, "VENDOR_ID+DEVICE_ID", None),
        ("pio", "", 0x2E9, 1, 0xFF, False, "+0x2e9", ""),
        ("mmio", "no such", 4, 4, 0, True, "+0x4", ""),
    ],
)
def test_registers(
    kind: str, device: str, offset: int, size: int, value: int, write: bool, name: str,
    meaning: str | None,
) -> None:  # fmt: skip
    found = Decoder(MACHINE).decode(kind, device, offset, size, value, write)
    assert found.name == name
    assert meaning is None or found.meaning == meaning


def test_what_was_written_selects_what_comes() -> None:
    decode = Decoder(MACHINE).decode
    assert decode("pio", "com1", 0, 1, 1, True) == Register("THR", "")
    decode("pio", "com1", 3, 1, 0x83, True)
    assert decode("pio", "com1", 0, 1, 1, True) == Register("DLL", "")
    decode("pio", "com1", 3, 1, 0x03, True)
    assert decode("pio", "com1", 0, 1, 1, True) == Register("THR", "")
    decode("pio", "rtc", 0, 1, 0x0A, True)
    assert decode("pio", "rtc", 1, 1, 0x26, False) == Register(
        "CMOS_DATA:REGA", "[RS=6 DV=32768Hz]"
    )
    names = [decode("pio", "pic0", n > 0, 1, 0x11, True).name for n in range(5)]
    assert names == ["ICW1", "ICW2", "ICW3", "ICW4", "OCW1"]


def test_two_windows_do_not_disturb_each_other() -> None:
    decode = Decoder(MACHINE).decode
    decode("pio", "pic0", 0, 1, 0x11, True)
    assert decode("pio", "pic1", 1, 1, 0xFF, True).name == "OCW1"
    assert decode("pio", "pic0", 1, 1, 0x20, True).name == "ICW2"


@pytest.mark.parametrize(
    "machine", [{}, {"drives": 3, "nics": [1, {"name": 2}], "serial_ports": {"a": 1}}]
)
def test_a_header_may_say_anything(machine: dict[str, object]) -> None:
    assert Decoder(machine).decode("pio", "com1", 0, 1, 1, True) == Register("+0x0", "")


def plainly(trace: Trace, by: str) -> Counter[tuple[str, ...]]:
    decoder = Decoder(trace.header.machine)
    found: Counter[tuple[str, ...]] = Counter()
    rows = tables.event_rows(tables.BY_NAME["accesses"], trace.accesses)
    for _, _, pc, kind, device, offset, size, write, value, _, count in rows:
        name = decoder.decode(kind, device, offset, size, value, write).name
        device = device or "(nothing)"
        label = {
            "device": (device,),
            "register": (device, name),
            "value": (device, name, f"{value:#x}"),
            "direction": ("write" if write else "read",),
            "pc": (f"{pc:#x}",),
        }[by]
        found[label] += count
    return found


@pytest.mark.parametrize("by", ["device", "register", "value", "direction", "pc"])
@pytest.mark.parametrize("rows", [7, 1 << 15])
def test_counts_are_those_of_a_plain_loop(
    chips: Path, by: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "_BATCH_ROWS", rows)  # what is selected holds in the next batch
    with open_trace(chips) as trace:
        found = stats.count(trace, (by,))
        assert {c.label: c.total for c in found.counts} == plainly(trace, by)
        assert found.total == sum(c.total for c in found.counts) == trace.rows("accesses")
        totals = [c.total for c in found.counts]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("by", ["register", "value", "bucket"])
def test_counts_of_several_threads_are_those_of_one(
    chips: Path, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "_BATCH_ROWS", 31)
    monkeypatch.setattr(analysis, "CHUNK_ROWS", 31)  # what is selected holds in the next piece
    analysis.repeat(chips, tmp_path / "long.wbt", 1500)
    with open_trace(tmp_path / "long.wbt") as trace:
        one = stats.count(trace, (by,), buckets=7)
        assert stats.count(trace, (by,), buckets=7, jobs=3) == one


def test_keys_that_are_joined(chips: Path) -> None:
    with open_trace(chips) as trace:
        joined = stats.count(trace, ("value", "direction", "pc"))
        for keep, by in ((slice(0, 3), "value"), (slice(3, 4), "direction"), (slice(4, 5), "pc")):
            sums: Counter[tuple[str, ...]] = Counter()
            for c in joined.counts:
                sums[c.label[keep]] += c.total
            assert sums == plainly(trace, by)


def test_kinds_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_BATCH_ROWS", 5)
    with open_trace(Path(__file__).parents[2] / "traces" / "v2-ata.wbt") as trace:
        relations = Relations(trace)
        owners = relations.accesses(trace.accesses).tolist()
        expected: Counter[tuple[str, ...]] = Counter()
        columns = (owners, *(trace.accesses[n].to_pylist() for n in ("device", "write", "count")))
        for owner, device, write, count in zip(*columns, strict=True):
            request = relations.requests[owner]
            kind = f"{request.device} {request.kind}" if owner >= 0 else "(no request)"
            expected[kind, device, "write" if write else "read"] += count
        found = stats.count(trace, ("request-kind", "device", "direction"))
    assert {c.label: c.total for c in found.counts} == expected
    assert len({label[0] for label in expected}) == 4


def test_names_beyond_a_bound_are_one() -> None:
    names = keys.Names(3)
    assert names.numbers(np.array([7, -5, 7, 2**62])).tolist() == [0, 1, 0, 2]
    assert names.numbers(np.array([9, 2**62, -5])).tolist() == [keys.NO_NAME, 2, 1]
    texts = keys.Texts(1)
    assert [texts.number("a"), texts.number("b"), texts.number("a")] == [0, keys.NO_NAME, 0]


def test_more_labels_than_are_kept(chips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_MAX_CELLS", 1)
    monkeypatch.setattr(stats, "_LEAST_LABELS", 3)
    with open_trace(chips) as trace:
        found = stats.count(trace, ("value", "pc"))
        assert found.total == trace.rows("accesses")
    assert len(found.counts) == 4
    assert found.counts[0].label == ("(others)",)


def test_counts_over_time(chips: Path) -> None:
    with open_trace(chips) as trace:
        found = stats.count(trace, ("register",), buckets=7)
        by_time = stats.count(trace, ("bucket",), buckets=7)
    assert all(sum(c.over_time) == c.total for c in found.counts)
    sums = [sum(column) for column in zip(*(c.over_time for c in found.counts), strict=True)]
    assert [c.total for c in by_time.counts] == sums
    assert len(by_time.counts) == 7


def test_counts_of_scattered_places_are_in_order() -> None:
    places, ones = np.array([1 << 40, 5, 1 << 40, 3]), np.ones(4, np.int64)
    found, counts = stats._count(places, ones)
    assert (found.tolist(), counts.tolist()) == ([3, 5, 1 << 40], [1, 1, 2])
