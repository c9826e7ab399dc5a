"""Checkpoints that somebody made to break us: each field of them, and what runs from it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import guests
from tests.gdbstub.conftest import demo_path
from workbench.core import layout as lay
from workbench.core.config import MachineConfig
from workbench.core.engine import STATE_FIELDS
from workbench.core.portable import load_cpu
from workbench.core.snapshot import Snapshot, save_cpu
from workbench.core.state import StateError
from workbench.core.values import bits_of
from workbench.errors import FormatError
from workbench.trace import stored
from workbench.trace.enrich import add_checkpoints
from workbench.trace.guest import Guest
from workbench.trace.reader import open_trace
from workbench.trace.session import Limits, Recording
from workbench.trace.timeline import Timeline

__all__ = ["demo_path"]


@pytest.fixture(scope="module")
def timeline(demo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timeline]:
    """Of a trace with checkpoints in it."""
    path = tmp_path_factory.mktemp("hostile") / "demo.wbt"
    shutil.copy(demo_path, path)
    with open_trace(path) as trace:
        add_checkpoints(trace, 1_000_000)
    with open_trace(path) as trace:
        yield Timeline(trace)


def load(timeline: Timeline, number: int) -> Snapshot:
    assert timeline.kept.stored is not None
    snapshot = timeline.kept.stored.load(number, lambda pages: True)
    assert snapshot is not None
    return snapshot


def elements() -> list[tuple[str, int, int]]:
    """Name, position and bytes of each element of each field."""
    out, at = [], 8
    for name in STATE_FIELDS:
        _, ty, count = lay.CPU.fields[name]
        for _ in range(count):
            out.append((name, at, bits_of(ty) // 8))
            at += bits_of(ty) // 8
    return out


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mxcsr", 0x1F80 | 1 << 16, "expected mxcsr to have no bits but 0xffff, not 0x11f80"),
        ("cc_op", 28, "expected cc_op below 28, not 28"),
        ("cc_op", 1 << 63, "expected cc_op below 28, not"),
        ("cpl", 4, "expected cpl below 4, not 4"),
        ("fpu_top", 8, "expected fpu_top below 8, not 8"),
        ("acc_count", 9, "expected acc_count below 9, not 9"),
        ("seg_attr", 1 << 20, "expected seg_attr to have no bits but"),
        ("cr0", 0x80000000, "expected paging in protected mode alone"),
        ("efer", 0x100, "expected EFER.LMA as CR0.PG, CR4.PAE and EFER.LME say"),
        ("irq_pending", 4, "expected irq_pending to have no bits but 0x3"),
    ],
)
def test_a_field_that_no_processor_has(
    timeline: Timeline, name: str, value: int, message: str
) -> None:
    data = bytearray(load(timeline, 3).cpu)
    at, size = next((at, size) for n, at, size in elements() if n == name)
    data[at : at + size] = value.to_bytes(size, "little")
    cpu = timeline.machine.cpu
    with pytest.raises(StateError, match=message):
        load_cpu(cpu, bytes(data), len(data), int.from_bytes(data[:8], "little"))


def run_on(timeline: Timeline) -> None:
    machine = timeline.machine
    end = machine.clock.icount
    for _ in range(4):
        end += 5_000
        if machine.run(end).kind != "icount":
            break
    machine.digest()
    machine.cpu.forget_blocks()


def test_every_field_of_the_processor(timeline: Timeline) -> None:
    """A value is refused, or the machine runs on in its memory: nothing else can happen."""
    rng = random.Random(5)
    cpu, refused = timeline.machine.cpu, 0
    snapshot = load(timeline, 4)
    for _, at, size in elements():
        bits = 8 * size
        old = int.from_bytes(snapshot.cpu[at : at + size], "little")
        for value in ((1 << bits) - 1, rng.getrandbits(bits), old ^ 1 << rng.randrange(bits)):
            data = bytearray(snapshot.cpu)
            data[at : at + size] = value.to_bytes(size, "little")
            try:
                state = load_cpu(cpu, bytes(data), len(save_cpu(cpu)), snapshot.icount)
            except FormatError:
                refused += 1
                continue
            timeline.machine.restore(
                Snapshot(snapshot.icount, snapshot.time_ps, state, snapshot.parts, snapshot.ram)
            )
            run_on(timeline)
    assert refused > 50


def test_values_of_devices(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a device's state cannot be is a `FormatError`; all else runs."""
    rng = random.Random(6)
    plain = stored.from_plain
    assert timeline.kept.stored is not None
    count, refused = len(timeline.kept.stored.icounts), 0

    def changed(value: Any) -> Any:
        found = plain(value)
        if isinstance(found, dict) and "devices" in found:
            part = rng.choice(["clock", "pending", "inputs", "msrs", *["devices"] * 12])
            if part != "devices":
                return found | {part: _other(found[part], rng)}
            name = rng.choice(sorted(found[part]))
            return found | {part: found[part] | {name: _other(found[part][name], rng)}}
        return found

    monkeypatch.setattr(stored, "from_plain", changed)
    for _ in range(250):
        try:
            load(timeline, rng.randrange(count))
        except FormatError:
            refused += 1
            timeline.machine.restore(timeline.kept.first)
            continue
        run_on(timeline)
    assert 50 < refused < 250


def _other(value: Any, rng: random.Random) -> Any:
    """`value` with something in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(sorted(value, key=str))
        return value | {key: _other(value[key], rng)}
    if isinstance(value, list | tuple) and value and rng.random() < 0.8:
        items = list(value)
        place = rng.randrange(len(items))
        items[place] = _other(items[place], rng)
        return type(value)(items)
    odd = [-1, 0, 1, 255, 1 << 16, 1 << 32, 1 << 63, 1 << 64, 1 << 200, None, "x", "00", [], {}]
    if isinstance(value, int) and rng.random() < 0.7:
        return value ^ 1 << rng.randrange(16)
    return rng.choice([*odd, True, 1.5, b"x", ()])


@pytest.mark.guest
def test_what_a_kernel_leaves_in_the_processor_is_taken(
    guest: Callable[[str], guests.Guest], tmp_path: Path
) -> None:
    found = guest("cloud")
    path = tmp_path / "boot.wbt"
    config = MachineConfig(ram_bytes=256 << 20, rtc_epoch_s=1_767_225_600, seed=1).to_json()
    image = Guest.from_files(str(found.kernel), str(found.images["boot"]), "console=ttyS0")
    Recording(str(path), config, image, limits=Limits(icount=1_400_000_000)).run()
    with open_trace(path) as trace:
        assert add_checkpoints(trace, 200_000_000) == 6
    with open_trace(path) as trace:
        kept = Timeline(trace).kept
        for number in range(6):
            assert kept.stored is not None
            assert kept.stored.load(number, lambda pages: True) is not None
        assert kept.problem == ""
