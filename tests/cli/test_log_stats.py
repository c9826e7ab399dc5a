"""`workbench log` and `workbench stats`, in this process."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.trace import guests
from workbench.cli.main import main
from workbench.core.config import MachineConfig
from workbench.trace.session import Recording

CONFIG = MachineConfig(ram_bytes=32 << 20, seed=1, rtc_epoch_s=1_767_225_600)
Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def workbench(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> CompletedProcess[str]:
        capfd.readouterr()
        status = main(args)
        return CompletedProcess(args, status, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 times: LSR, THR, and a read of the host bridge's identity."""
    path = tmp_path_factory.mktemp("chips") / "chips.wbt"
    Recording(str(path), CONFIG.to_json(), guests.CHIPS).run()
    return path


@pytest.fixture
def chips(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("chips.wbt").symlink_to(trace)
    return "chips.wbt"


def test_the_log(workbench: Run, chips: str) -> None:
    done = workbench("log", chips, "--device", "com1", "--limit", "2")
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["2", "0x100029", "com1", "LSR", "->", "0x60", "[THRE=1", "TEMT=1]"],
        ["5", "0x100030", "com1", "THR", "<-", "0x41"],
    ]
    assert "\x1b" not in done.stdout


def test_a_device_that_is_not_there(workbench: Run, chips: str) -> None:
    done = workbench("log", chips, "--device", "idee")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "workbench: no device in this trace fits 'idee': it has com1, config-address,"
        " config-data, debugexit, i440fx\n"
    )
    done = workbench("log", chips, "--device", "com1", "--register", "TRH", "--read")
    assert done.stderr == (
        "workbench: no register in this trace fits 'TRH' (did you mean THR?): it has LSR, THR\n"
    )
    assert workbench("log", chips, "--device", "com1", "--register", "THR", "--read").stderr == ""
    done = workbench("requests", chips, "--device", "ide*")
    assert (
        done.stderr == "workbench: no device with requests in this trace fits 'ide*': it has none\n"
    )


def test_filters(workbench: Run, chips: str) -> None:
    whole = workbench("log", chips).stdout.splitlines()
    reads = workbench("log", chips, "--read").stdout.splitlines()
    writes = workbench("log", chips, "--write").stdout.splitlines()
    assert sorted(reads + writes) == sorted(whole)
    assert all(" <- " in line for line in writes)
    lsr = workbench("log", chips, "--register", "lsr", "--register", "no*").stdout
    assert lsr.count("\n") == 300 == lsr.count("LSR")
    part = workbench("log", chips, "--from", "1k", "--to", "2,000").stdout.splitlines()
    counts = [int(line.split()[0].replace(",", "")) for line in whole]
    assert len(part) == sum(1000 <= n <= 2000 for n in counts)
    assert workbench("log", chips, "--from", "0", "--limit", "0").stdout == ""
    assert workbench("log", chips, "--device", "com9").stdout == ""


def test_the_log_as_json(workbench: Run, chips: str) -> None:
    done = workbench("log", chips, "--json", "--device", "i440fx", "--limit", "1")
    item = json.loads(done.stdout)
    assert (item["kind"], item["register"]) == ("cfg", "VENDOR_ID+DEVICE_ID")
    assert item["value"] == 0x1237_8086


def test_symbols_of_a_file(workbench: Run, chips: str, tmp_path: Path) -> None:
    (tmp_path / "System.map").write_text("0000000000100020 T start\n")
    arguments = ("--symbol-file", "System.map", "--limit", "1")
    assert " start+0x9 " in workbench("log", chips, *arguments).stdout
    stats = workbench("stats", chips, "--by", "function", "--symbol-file", "System.map", "--json")
    (row,) = json.loads(stats.stdout)["rows"]
    assert row["function"] == "start"


def test_a_hostile_name_does_not_reach_the_terminal(
    workbench: Run, chips: str, tmp_path: Path
) -> None:
    (tmp_path / "System.map").write_text("100020 T \x1b[31mstart\x07\n", encoding="utf-8")
    done = workbench("log", chips, "--symbol-file", "System.map")
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mstart" in done.stdout
    stats = workbench("stats", chips, "--by", "function", "--symbol-file", "System.map", "--heat")
    assert "\x1b" not in stats.stdout


def test_stats(workbench: Run, chips: str) -> None:
    shown = workbench("stats", chips, "--by", "register", "--heat").stdout
    assert re.search(r"^  com1 LSR +300 +0 +\d+\.\d% +#+$", shown, re.M)
    assert re.search(r"^  com1 THR +\|.{60}\|$", shown, re.M)
    facts = json.loads(workbench("stats", chips, "--by", "register", "--json").stdout)
    log = map(json.loads, workbench("log", chips, "--json").stdout.splitlines())
    counts = Counter((item["device"], item["register"]) for item in log)
    rows = {(r["device"], r["register"]): r["reads"] + r["writes"] for r in facts["rows"]}
    assert rows == counts
    assert facts["accesses"] == sum(counts.values())


def test_stats_by_time(workbench: Run, chips: str) -> None:
    facts = json.loads(
        workbench("stats", chips, "--by", "bucket", "--buckets", "5", "--json").stdout
    )
    starts = [row["from_icount"] for row in facts["rows"]]
    assert starts == [n * facts["bucket_icount"] for n in range(5)]
    assert sum(r["reads"] + r["writes"] for r in facts["rows"]) == facts["accesses"]


@pytest.mark.parametrize("by", ["device", "direction", "value", "pc"])
def test_the_most_frequent_come_first(workbench: Run, chips: str, by: str) -> None:
    facts = json.loads(workbench("stats", chips, "--by", by, "--top", "1", "--json").stdout)
    assert len(facts["rows"]) == 1
    assert facts["rows"][0]["reads"] + facts["rows"][0]["writes"] >= 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("log", "--from", "soon"),
        ("log", "--limit", "-1"),
        ("log", "--read", "--write"),
        ("stats", "--by", "colour"),
        ("stats", "--buckets", "0"),
        ("stats", "--top", "-1"),
    ],
)
def test_wrong_usage(workbench: Run, chips: str, arguments: tuple[str, ...]) -> None:
    done = workbench(arguments[0], chips, *arguments[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("workbench: ")


def test_a_file_of_symbols_that_is_none(workbench: Run, chips: str) -> None:
    done = workbench("log", chips, "--symbol-file", chips)
    assert done.returncode == 1
    assert done.stderr == "workbench: chips.wbt: there are no symbols in it\n"
