"""`workbench export` and `workbench query`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import workbench as api
from tests.cli.conftest import Run

RECORD = ("record", "--kernel", "vmlinuz", "-q", "-o", "t.wbt")


def test_export(workbench: Run, kernel: str, tmp_path: Path) -> None:
    workbench(*RECORD, fake=True)
    done = workbench(
        "export", "t.wbt", "--parquet", "p", "--vcd", "irq.vcd", "--perfetto", "t.pftrace",
        "--pcapng", "net.pcapng", "--json", "t.jsonl",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 5
    for name in ("p/accesses.parquet", "irq.vcd", "t.pftrace", "net.pcapng", "t.jsonl"):
        assert (tmp_path / name).stat().st_size > 0
    lines = workbench("export", "t.wbt", "--json", "-").stdout
    assert lines == (tmp_path / "t.jsonl").read_text()
    assert workbench("export", "t.wbt").returncode == 2
    assert workbench("export", "t.wbt", "--vcd", "-").returncode == 2
    (tmp_path / "cut.wbt").write_bytes((tmp_path / "t.wbt").read_bytes()[:-500])
    done = workbench("export", "cut.wbt", "--json", "cut.jsonl", "--perfetto", "cut.pftrace")
    assert done.returncode == 0
    assert "cut.wbt was cut: it is complete up to instruction " in done.stderr
    failed = workbench("export", "t.wbt", "--vcd", "no/such")
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)


def test_query(workbench: Run, kernel: str, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    workbench(*RECORD, fake=True)
    with api.open(tmp_path / "t.wbt") as trace:
        count = trace.accesses.num_rows
    done = workbench("query", "t.wbt", "select count(*) as n from accesses")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["1", "row", "n", str(count)]
    done = workbench("query", "t.wbt", "select seq, data from console limit 2", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2
    assert bytes.fromhex(rows[0]["data"])
    assert "  offset  ubigint" in workbench("query", "--schema").stdout
    assert json.loads(workbench("query", "--schema", "--json").stdout)["dma"]["gpa"] == "ubigint"
    done = workbench("query", "t.wbt", "select 1 as x, null as y, 'z' as x")
    assert done.stdout.split() == ["1", "row", "x", "y", "x", "1", "z"]
    done = workbench("query", "t.wbt", "select 1 as x, 'a,b' as y, null as z", "--csv")
    assert done.stdout == 'x,y,z\n1,"a,b",\n'
    wrong = workbench("query", "t.wbt", "selec")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert workbench("query", "t.wbt").returncode == 2


def test_a_long_result(workbench: Run, kernel: str) -> None:
    pytest.importorskip("duckdb")
    workbench(*RECORD, fake=True)
    sql = "select range as n, 'x' as name from range(30_000)"
    lines = workbench("query", "t.wbt", sql).stdout.splitlines()
    assert (lines[0].split(), lines[-1]) == (["n", "name"], "30,000 rows")
    assert [line.split() for line in lines[1:-1]] == [[str(n), "x"] for n in range(30_000)]
    few = workbench("query", "t.wbt", sql.replace("30_000", "1000")).stdout.splitlines()
    assert (few[0], len(few)) == ("1,000 rows", 1002)
