"""Many traces: folders, broken ones, all cores, a Dask cluster on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, environment
from tests.gdbstub.conftest import demo_path
from tests.trace.test_stored import enriched
from workbench.cli.main import main
from workbench.cli.stats import count_one
from workbench.cli.symbols import Choice
from workbench.errors import InputFileError, WorkbenchError
from workbench.trace import fleet, parts, stats
from workbench.trace.reader import open_trace
from workbench.trace.replayer import Replay

__all__ = ["demo_path", "enriched"]

DEMO = ROOT / "traces" / "v1-demo.wbt"
WORK = (("device",), 5, None, Choice(False, None, None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three traces in a folder and one below it, and one that is none."""
    (tmp_path / "below").mkdir()
    for name in ("a", "b", "below/c"):
        (tmp_path / f"{name}.wbt").symlink_to(DEMO)
    (tmp_path / "z.wbt").write_bytes(b"no trace")
    return tmp_path


def test_a_folder_stands_for_its_traces(folder: Path) -> None:
    found = fleet.find([str(folder), str(folder / "a.wbt"), "elsewhere.wbt"])
    names = ["a.wbt", "b.wbt", "below/c.wbt", "z.wbt"]
    assert found == [*(str(folder / name) for name in names), "elsewhere.wbt"]
    (folder / "empty").mkdir()
    with pytest.raises(InputFileError, match="there is no trace"):
        fleet.find([str(folder / "empty")])


def check(results: Iterator[fleet.Result[stats.Stats]]) -> None:
    found = list(results)
    assert [Path(r.path).name for r in found] == ["a.wbt", "b.wbt", "c.wbt", "z.wbt"]
    assert "not a Workbench trace" in found[3].problem
    one = count_one(str(DEMO), *WORK)
    merged = stats.merge(r.value for r in found if r.value is not None)
    assert merged.total == 3 * one.total
    assert [(c.label, c.over_time) for c in merged.counts] == [
        (c.label, [3 * n for n in c.over_time]) for c in one.counts
    ]


def test_on_all_cores_as_in_this_process(folder: Path) -> None:
    paths = fleet.find([str(folder)])
    check(fleet.each(count_one, paths, *WORK, jobs=1))
    check(fleet.each(count_one, paths, *WORK, jobs=2))


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(folder), "--json", "--jobs", "1", "--by", "phase,direction"]) == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "z.wbt" in err
    rows = json.loads(out)["rows"]
    assert {(r["phase"], r["direction"]) for r in rows} >= {("kernel", "read"), ("early", "write")}


def test_a_query_over_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    (folder / "z.wbt").unlink()
    sql = "select trace, count(*) n from accesses group by trace order by trace"
    assert main(["query", str(folder), sql, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["trace"]).name for row in rows] == ["a.wbt", "b.wbt", "c.wbt"]
    assert {row["n"] for row in rows} == {1935}


def test_one_against_many(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["diff", str(DEMO), str(folder), "--against-many", "--jobs", "1"]
    assert main([*command, "--json"]) == 2  # one of them is no trace
    found = json.loads(capsys.readouterr().out)["traces"]
    assert [row["equal"] for row in found] == [True] * 3
    (folder / "z.wbt").unlink()
    assert main(command) == 0
    (folder / "z.wbt").symlink_to(ROOT / "traces" / "v2-demo.wbt")
    assert main([*command, "-q"]) in (0, 1)


def test_replays_of_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.wbt").unlink()
    status = main(["replay", str(folder), "--json", "--jobs", "1"])
    out, err = capsys.readouterr()
    rows = json.loads(out)["traces"]
    assert [Path(row["trace"]).name for row in rows] == ["a.wbt", "c.wbt"]
    assert status == 1
    assert "z.wbt" in err
    assert all(row["instructions"] == 5_824_900 for row in rows)


@pytest.mark.slow
def test_on_a_cluster(folder: Path, enriched: Path) -> None:
    pytest.importorskip("distributed")
    file = folder / "scheduler.json"
    common = {"env": environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file)]
    scheduler += ["--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    worker += ["--no-dashboard", "--nthreads", "1", "--host", "127.0.0.1"]
    processes = [subprocess.Popen(scheduler, cwd=folder, **common)]
    try:
        processes += [subprocess.Popen(worker, cwd=folder, **common) for _ in range(2)]
        for _ in range(200):
            if file.exists() and file.stat().st_size:
                break
            time.sleep(0.1)
        address = json.loads(file.read_text(encoding="utf-8"))["address"]
        check(fleet.each(count_one, fleet.find([str(folder)]), *WORK, scheduler=address))
        # One trace, each worker from a checkpoint in it.
        found = parts.verify(str(enriched), 4, scheduler=address)
        with open_trace(enriched) as trace:
            whole = Replay(trace).run()
        assert found is not None
        assert replace(found, wall_s=0) == replace(whole, wall_s=0)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_quietly(folder: Path) -> None:
    for n in range(300):
        (folder / f"n{n}.wbt").symlink_to(DEMO)
    command = [sys.executable, "-m", "workbench", "replay", str(folder), "--jobs", "2", "-q"]
    process = subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    time.sleep(3)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in err


@pytest.mark.slow
def test_where_ctrl_c_is_ignored_all_processes_ignore_it(folder: Path) -> None:
    (folder / "z.wbt").unlink()
    for n in range(20):
        (folder / f"n{n}.wbt").symlink_to(DEMO)
    command = 'trap \'\' INT; exec "$0" -m workbench replay "$1" --jobs 2 -q'
    process = subprocess.Popen(
        ["sh", "-c", command, sys.executable, str(folder)], env=environment(),
        start_new_session=True,
    )  # fmt: skip
    for _ in range(10):
        time.sleep(0.2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 0


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(WorkbenchError, match="part of the work has died"):
        list(fleet.spread(os._exit, [(1,), (1,)], jobs=2))
