"""Requests of traces that lie: cut, flipped, and with any values in their tables."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.trace.test_requests import Script
from workbench.cli.main import main
from workbench.core.requests import RequestEvent
from workbench.errors import FormatError, WorkbenchError
from workbench.trace import requests as module
from workbench.trace.reader import open_trace
from workbench.trace.requests import Relations, Requests

DEVICES = ("ide0", "ide1", "vda", "net0", "\x1b[31m", "", "a/b")
WINDOWS = (*DEVICES, "bmide", "ide0.control", "net0.io", "vda.msix")


def anything(rng: random.Random, count: int) -> Script:
    script = Script()
    for _ in range(count):
        script.now += rng.choice((0, 0, 1, 5, 2_000_000))
        match rng.randrange(4):
            case 0:
                script.on_request(
                    RequestEvent(rng.choice(DEVICES), rng.choice((0, 1, 2, 3, (1 << 64) - 1)),
                    rng.choice(("begin", "begin", "update", "end", "", "x\x07")),
                    rng.choice(("READ DMA", "tx", "rx", "\x9b2J")), rng.randrange(-9, 9),
                    rng.getrandbits(64), rng.getrandbits(64), rng.random() < 0.5,
                    rng.randrange(-1, 9), rng.getrandbits(32), rng.choice(("ok", "\x1b]0;x\x07")),
                    "\r\n"), script.now,
                )  # fmt: skip
            case 1:
                kind = rng.choice(("pio", "mmio", "cfg", "?"))
                offset = rng.choice((1, 7, 0x3818, (1 << 64) - 1))
                script.access(rng.choice(WINDOWS), offset, rng.random() < 0.5, kind)
            case 2:
                script.on_dma(
                    rng.choice(("piix3_ide", *DEVICES)), 0, rng.getrandbits(64),
                    rng.random() < 0.5, script.now,
                )  # fmt: skip
            case 3:
                name = rng.choice(("IRQ14", "IRQ15", "IRQ11", "vda.msi36", ".msi", "x.msi1"))
                script.on_irq_line(name, rng.random() < 0.7, script.now)
    return script


@pytest.mark.parametrize("seed", range(30))
def test_any_rows_are_related_to_something_or_to_nothing(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    script = anything(rng, rng.choice((0, 1, 5, 300)))
    with script.write(tmp_path / "a.wbt") as trace:
        relations = Relations(trace)
        found = relations.requests
        totals = relations.totals()
        assert len(totals.accesses) == len(totals.dma_bytes) == len(found)
        assert totals.accesses.sum() <= trace.accesses.num_rows
        names = [request.name for request in found]
        assert len(set(names)) == len(names)
        for request in found:
            at = found.find(request.name)
            assert at is not None
            assert found[at].begin_seq == request.begin_seq


@pytest.mark.parametrize("seed", range(4))
def test_what_is_shown_has_no_control_characters(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anything(random.Random(seed), 200).write(tmp_path / "a.wbt").close()
    path = str(tmp_path / "a.wbt")
    for words in (
        ["requests", path], ["requests", path, "--json"], ["log", path, "--requests"],
        ["stats", path, "--by", "request-kind"], ["stats", path],
        ["stats", path, "--by", "request-kind", "--json"], ["info", path],
    ):  # fmt: skip
        assert main(words) == 0, words
        shown = capsys.readouterr()
        assert not [c for c in shown.out + shown.err if not c.isprintable() and c != "\n"], words


def read_all(path: Path) -> None:
    with open_trace(path) as trace:
        relations = Relations(trace)
        relations.totals()
        list(relations.requests)


def test_a_trace_cut_anywhere(tmp_path: Path) -> None:
    anything(random.Random(1), 300).write(tmp_path / "a.wbt").close()
    data = (tmp_path / "a.wbt").read_bytes()
    path = tmp_path / "b.wbt"
    opened = 0
    for end in [*range(64), *range(64, len(data), 37), *range(len(data) - 64, len(data))]:
        path.write_bytes(data[:end])
        try:
            read_all(path)
            opened += 1
        except WorkbenchError:
            continue
    assert opened


def test_flipped_bits(tmp_path: Path) -> None:
    anything(random.Random(2), 300).write(tmp_path / "a.wbt").close()
    data = (tmp_path / "a.wbt").read_bytes()
    path = tmp_path / "b.wbt"
    rng = random.Random(3)
    refused = 0
    for _ in range(300):
        wrong = bytearray(data)
        wrong[rng.randrange(len(wrong))] ^= 1 << rng.randrange(8)
        path.write_bytes(wrong)
        try:
            read_all(path)
        except WorkbenchError:
            refused += 1
    assert refused > 200


def test_too_many_rows_or_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script()
    for n in range(300):
        script.begin(f"d{n}", 1)
    with script.write(tmp_path / "a.wbt") as trace:
        with pytest.raises(FormatError, match="too many devices"):
            Requests(trace)
        monkeypatch.setattr(module, "MOST_ROWS", 299)
        with pytest.raises(FormatError, match="claims 300 rows"):
            Requests(trace)


def test_many_names_do_not_take_long(tmp_path: Path) -> None:
    """Each row of its own name: the work must not be names times rows."""
    script = Script()
    script.begin("vda", 1)
    for n in range(20_000):
        script.on_irq_line(f"x{n}", True, 0)
        script.on_dma(f"y{n}", 0, 1, True, 0)
        script.begin("vda", n + 2, f"kind {n}")
    with script.write(tmp_path / "a.wbt") as trace:
        totals: Any = Relations(trace).totals()
        assert totals.interrupts.sum() == 20_000
    assert main(["stats", str(tmp_path / "a.wbt"), "--by", "request-kind"]) == 0
