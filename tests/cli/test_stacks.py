"""`log --stacks`, `export --speedscope` and `--folded`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.test_log_stats import Run, chips, trace, workbench
from workbench.cli import stacks as command
from workbench.trace import stacks
from workbench.trace.export.flame import write_folded, write_speedscope
from workbench.trace.reader import open_trace
from workbench.trace.symbols import SymbolTable

__all__ = ["chips", "trace", "workbench"]


def test_log(workbench: Run, chips: str) -> None:
    plain = workbench("log", chips, "--device", "com1", "--limit", "3", "--json")
    done = workbench("log", chips, "--device", "com1", "--limit", "3", "--json", "--stacks")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.pop("callers") for row in rows] == [[], [], []]  # it calls nothing
    assert [row["seq"] for row in rows] == [
        json.loads(line)["seq"] for line in plain.stdout.splitlines()
    ]


def test_export(workbench: Run, chips: str) -> None:
    done = workbench("export", chips, "--device", "com*", "--folded", "f", "--speedscope", "s.json")
    assert done.returncode == 0, done.stderr
    folded = [line.rpartition(" ") for line in Path("f").read_text().splitlines()]
    assert sum(int(count) for _, _, count in folded) == 600
    assert all(frames.endswith(";com1") for frames, _, _ in folded)
    (profile,) = json.loads(Path("s.json").read_text())["profiles"]
    assert profile["endValue"] == sum(profile["weights"]) == 600
    assert workbench("export", chips, "--folded", "-").returncode == 2


def test_chains_in_every_form(chips: str, tmp_path: Path) -> None:
    """Chains of a guest with functions, whose names have what separates frames."""
    table = SymbolTable([(0x1000, "t", "in;ner"), (0x2000, "t", "outer")])
    with open_trace(chips) as trace:
        found = stacks.Stacks(chains=[(0x1004, 0x2008), (0x2010,)])
        found.of_access.extend([0, -1, 0, 1])
        with (tmp_path / "f").open("wb") as file:
            count = write_folded(trace, found, table, file)
        lines = (tmp_path / "f").read_text().splitlines()
        assert len(lines) == count
        assert sum(int(line.rsplit(" ")[-1]) for line in lines) == 3
        assert any(line.startswith("outer;in_ner;") for line in lines)
        with (tmp_path / "s").open("wb") as file:
            samples = write_speedscope(trace, found, table, file)
        document = json.loads((tmp_path / "s").read_text())
        frames = [frame["name"] for frame in document["shared"]["frames"]]
        (profile,) = document["profiles"]
        assert len(profile["samples"]) == len(profile["weights"]) == samples
        assert [frames[n] for n in profile["samples"][0]][:2] == ["outer", "in;ner"]
        seqs = trace.accesses["seq"].to_pylist()
        callers = command.by_seq(trace, found, table)
        assert [callers(seq) for seq in seqs[:5]] == [
            ["outer+0x7"], [], ["outer+0x7"], [], []
        ]  # fmt: skip


def test_only_what_is_asked_for_is_unwound(chips: str) -> None:
    with open_trace(chips) as trace:
        icounts = trace.accesses["icount"].to_pylist()
        devices = trace.accesses["device"].to_pylist()
        found = stacks.of_trace(trace, ("com1",), icounts[10], icounts[20])
        wanted = [icounts[10] <= icounts[n] and devices[n] == "com1" for n in range(21)]
        assert [which >= 0 for which in found.of_access[:21]] == wanted
        assert len(found.of_access) < 40
        assert not found.diverged
