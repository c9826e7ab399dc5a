"""`workbench gdb` and `workbench record --gdb` as a user calls them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from workbench.cli import gdb as cli
from workbench.firmware import demo
from workbench.gdbstub.symbolfiles import SymbolFile, SymbolFiles
from workbench.gdbstub.symbols import elf

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
WORKBENCH = [sys.executable, "-m", "workbench"]
ROOT = Path(__file__).parents[2]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WORKBENCH, *args], capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )


def test_gdb_is_started_on_a_trace(demo_path: Path) -> None:
    commands = ["monitor seek 20000", "stepi", "reverse-stepi", "monitor when", "kill"]
    more = [part for command in commands for part in ("-ex", command)]
    done = run("gdb", str(demo_path), "--", "--nx", "-batch", *more)
    assert "instruction 20,000," in done.stdout + done.stderr
    assert done.returncode == 0


def test_options_may_stand_between_the_trace_and_gdbs_arguments(demo_path: Path) -> None:
    done = run("gdb", str(demo_path), "--at", "50%", "--", "--nx", "-batch", "-ex", "monitor when",
               "-ex", "info registers rip", "-ex", "kill")  # fmt: skip
    assert "rip " in done.stdout
    assert done.returncode == 0
    done = run("gdb", str(demo_path), "--at", "nowhere", "--", "--nx", "-batch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected a position" in done.stderr


def test_the_users_file_of_symbols(demo_path: Path, tmp_path: Path) -> None:
    done = run("gdb", str(demo_path), "--symbols", str(tmp_path / "none"), "--", "-batch")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no such file" in done.stderr
    path = tmp_path / 'my "kernel'
    path.write_bytes(elf([(0xFFFF_FFFF_8100_0000, "T", "_text")]))
    done = run("gdb", str(demo_path), "--symbols", str(path), "--", "--nx", "-batch",
               "-ex", "info address _text", "-ex", "kill")  # fmt: skip
    assert '"_text" is at 0xffffffff81000000' in done.stdout


def test_a_trace_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "none.wbt"
    path.write_bytes(b"nothing")
    done = run("gdb", str(path))
    assert done.returncode == 1
    assert done.stderr.startswith("workbench: ")
    assert "Traceback" not in done.stderr


def test_a_wrong_option_overwrites_no_trace(tmp_path: Path) -> None:
    kernel, trace = tmp_path / "demo.elf", tmp_path / "kept.wbt"
    kernel.write_bytes(demo.image())
    trace.write_bytes(b"kept")
    start = ("record", "--kernel", str(kernel), "-o", str(trace))
    done = run(*start, "--wait")
    assert (done.returncode, trace.read_bytes()) == (2, b"kept")
    assert "--gdb" in done.stderr
    for options in (
        ("--memory-budget", "64M"),
        ("--gdb", f"unix:{tmp_path / 'g'}", "--memory-budget", "0"),
    ):
        done = run(*start, *options)
        assert (done.returncode, trace.read_bytes()) == (2, b"kept")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(*start, "--gdb", f":{taken.getsockname()[1]}")
    assert (done.returncode, trace.read_bytes()) == (1, b"kept")
    assert "in use" in done.stderr
    done = run("record", "--kernel", str(tmp_path / "none"), "--gdb", f"unix:{tmp_path / 'gdb'}")
    assert done.returncode == 1
    assert not (tmp_path / "gdb").exists()


def test_gdb_connects_to_a_recording(tmp_path: Path) -> None:
    kernel, place, trace = tmp_path / "demo.elf", tmp_path / "gdb", tmp_path / "demo.wbt"
    kernel.write_bytes(demo.image())
    command = [
        *WORKBENCH, "record", "--kernel", str(kernel), "-m", "64", "-o", str(trace),
        "--serial", "none", "--gdb", f"unix:{place}", "--wait", "--timeout", "60",
        "--memory-budget", "64M",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as recorder:
        started = time.monotonic()
        while not place.exists() and time.monotonic() - started < 50:
            time.sleep(0.05)
        script = ["set architecture i386:x86-64", f"target remote {place}", "stepi 5",
                  "monitor when", "continue"]  # fmt: skip
        more = [part for line in script for part in ("-ex", line)]
        done = subprocess.run(
            ["gdb", "--nx", "-q", "-batch", *more],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        _, errors = recorder.communicate(timeout=60)
    assert "instruction 5," in done.stdout + done.stderr, errors
    assert "No more reverse-execution history" in done.stdout  # its past is still there
    assert run("replay", str(trace), "--serial", "none").returncode == 0


def test_a_module_may_be_called_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is the guest's; each file is in the folder all the same, and is its own."""
    names = ["vmlinux", "..", "gdbinit", "twice", "twice"]
    files = [SymbolFile(name, n, data=bytes([n])) for n, name in enumerate(names)]
    monkeypatch.setattr(SymbolFiles, "of", lambda self, machine: files)
    cli._kernel_symbols(Mock(end_icount=0), tmp_path)
    paths = [Path(file.path) for file in files]
    assert {path.parent for path in paths} == {tmp_path}
    assert [path.read_bytes() for path in paths] == [bytes([n]) for n in range(len(names))]
