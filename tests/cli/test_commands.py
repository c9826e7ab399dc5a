"""The subcommands, on the fake machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import workbench as api
from tests.cli.conftest import Run

RECORD = ("record", "--kernel", "vmlinuz", "-o", "t.wbt")


def test_record_info_replay(workbench: Run, kernel: str, tmp_path: Path) -> None:
    done = workbench(*RECORD, "--append", "quiet", fake=True)
    assert done.returncode == 0, done.stderr
    assert "workbench: recorded 20,000 instructions" in done.stderr
    with api.open(tmp_path / "t.wbt") as trace:
        assert done.stdout.encode() == trace.console_bytes("com1")
        assert trace.header.options["append"] == "quiet"
        events = trace.events
    shown = workbench("info", "t.wbt")
    assert re.search(r"^  state +closed$", shown.stdout, re.M)
    assert re.search(r"^  command line +quiet$", shown.stdout, re.M)
    facts = json.loads(workbench("info", "t.wbt", "--json").stdout)
    assert (facts["state"], facts["events"]) == ("closed", events)
    assert sum(t["rows"] for t in facts["tables"].values()) == events
    again = workbench("replay", "t.wbt", fake=True)
    assert again.returncode == 0, again.stderr
    assert "t.wbt: identical: 20,000 instructions" in again.stderr
    assert again.stdout == done.stdout + "\n"
    result = json.loads(workbench("replay", "t.wbt", "--json", fake=True).stdout)
    assert (result["identical"], result["events"], result["divergence"]) == (True, events, None)


def test_a_replay_that_diverges(workbench: Run, kernel: str, tmp_path: Path) -> None:
    workbench(*RECORD, fake=True)
    data = (tmp_path / "t.wbt").read_bytes()
    # Another seed in the header, with the checksums of the chunk made again.
    from workbench.trace.container import ContainerFile, encode_chunk, encode_prelude

    file = ContainerFile(tmp_path / "t.wbt")
    chunks = [(c, file.payload(c)) for c in file.layout().chunks]
    file.close()
    out = encode_prelude()
    for number, (chunk, payload) in enumerate(chunks):
        changed = payload.replace(b'"seed":1', b'"seed":2')
        out += encode_chunk(chunk.kind, number, changed, rows=chunk.rows)
    assert len(out) != len(data)
    (tmp_path / "t.wbt").write_bytes(out)
    done = workbench("replay", "t.wbt", "-q", fake=True)
    assert done.returncode == 3
    assert done.stderr.startswith("workbench: the replay diverged at event 1, instruction ")
    assert done.stdout == ""
    result = json.loads(workbench("replay", "t.wbt", "--json", fake=True).stdout)
    assert result["result"] == "diverged"
    assert result["divergence"]["index"] == 1
    assert result["divergence"]["recorded"] != result["divergence"]["replayed"]
    assert workbench("replay", "t.wbt", "--no-verify", "-q", fake=True).returncode == 0


def test_a_cut_trace(workbench: Run, kernel: str, tmp_path: Path) -> None:
    workbench(*RECORD, fake=True)
    path = tmp_path / "t.wbt"
    path.write_bytes(path.read_bytes()[:-500])
    shown = workbench("info", "t.wbt")
    assert "cut: the last " in shown.stdout
    done = workbench("replay", "t.wbt", fake=True)
    assert done.returncode == 0
    assert "workbench: t.wbt was cut: it is complete up to instruction " in done.stderr
    assert "identical up to where the trace was cut" in done.stderr


def test_images_kept_outside(workbench: Run, kernel: str, tmp_path: Path) -> None:
    workbench(*RECORD, "--no-embed", fake=True)
    assert workbench("replay", "t.wbt", "-q", fake=True).returncode == 0
    (tmp_path / kernel).write_bytes(b"another")
    done = workbench("replay", "t.wbt", "-q", fake=True)
    assert done.returncode == 1
    assert "the kernel was kept out of the trace and " in done.stderr
    assert "has changed since the recording" in done.stderr


def test_limits(workbench: Run, kernel: str) -> None:
    done = workbench(*RECORD, "--max-insns", "5k", "-q", fake=True)
    assert done.returncode == 124
    assert done.stderr == (
        "workbench: the limit of 5,000 instructions was reached with the guest at PC 0x1234; the"
        " trace is complete up to there\n"
    )
    done = workbench("replay", "t.wbt", "-q", fake=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("stop", "status", "message"),
    [
        ("triple-fault", 1, "the guest came to a bad end, triple-fault: the guest said so"),
        ("halted", 1, "the guest came to a bad end, halted: the guest said so"),
        ("reset", 0, ""),
        ("shutdown", 0, ""),
    ],
)
def test_how_a_guest_ends(
    workbench: Run, kernel: str, stop: str, status: int, message: str
) -> None:
    done = workbench(*RECORD, "-q", fake=True, FAKE_STOP=stop)
    assert (done.returncode, message in done.stderr) == (status, True)
    assert workbench("replay", "t.wbt", "-q", fake=True).returncode == 0


def test_unknown_opcodes_are_shown(workbench: Run, kernel: str) -> None:
    done = workbench(*RECORD, "-q", fake=True, FAKE_UNDEFINED="1")
    assert done.stderr == "workbench: unknown to this processor, 1,234 times: 0f 04 (nonsense)\n"


def test_debug_exit(workbench: Run, kernel: str) -> None:
    assert workbench(*RECORD, "--debug-exit", fake=True).returncode == 5


def test_serial(workbench: Run, kernel: str, tmp_path: Path) -> None:
    silent = workbench(*RECORD, "--serial", "none", fake=True)
    assert (silent.returncode, silent.stdout) == (0, "")
    workbench(*RECORD, "-serial", "file:out.txt", fake=True)
    with api.open(tmp_path / "t.wbt") as trace:
        assert (tmp_path / "out.txt").read_bytes() == trace.console_bytes()
    typed = workbench(*RECORD, "--serial", "stdio", fake=True, stdin="ls\nq", FAKE_SLOW="1",
                      FAKE_INSNS="4000")  # fmt: skip
    assert "LS\nQ" in typed.stdout
    with api.open(tmp_path / "t.wbt") as trace:
        assert b"".join(trace.inputs["data"].to_pylist()) == b"ls\nq"
    assert workbench("replay", "t.wbt", "-q", fake=True).returncode == 0
    # A pipe on stdin is not read unless it is asked for.
    workbench(*RECORD, fake=True, stdin="ls\n")
    with api.open(tmp_path / "t.wbt") as trace:
        assert trace.inputs.num_rows == 0


def test_doctor(workbench: Run) -> None:
    done = workbench("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["healthy"] else 1)
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["pyarrow"]["ok"]
    assert checks["qemu-system-x86_64"]["purpose"]
    assert {"gdb", "tshark", "qemu-img", "/dev/kvm", "engine cache"} <= checks.keys()
    assert {"SeaBIOS", "iPXE, e1000", "iPXE, virtio-net", "linuxboot", "libslirp"} <= checks.keys()
    assert {"qemu-storage-daemon", "nbdkit", "duckdb", "bokeh", "drgn"} <= checks.keys()
    assert not any(checks[name]["needed"] for name in ("SeaBIOS", "libslirp", "nbdkit", "duckdb"))
    assert "what it is for" in workbench("doctor").stdout
    bare = workbench("doctor", PATH="/nonexistent")
    assert "apt-get install gdb" in bare.stdout
    assert "apt-get install nbdkit" in bare.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(workbench: Run, tmp_path: Path, shell: str) -> None:
    script = workbench("completion", shell).stdout
    for word in ("record", "replay", "doctor", "no-embed", "initrd"):
        assert word in script
    program = shutil.which(shell)
    if program is not None:
        (tmp_path / "script").write_text(script)
        done = subprocess.run(
            [program, "-n", str(tmp_path / "script")], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes(workbench: Run, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    script = workbench("completion", "bash").stdout
    (tmp_path / "boot.wbt").touch()

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        ask = (
            f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _workbench; echo ${{COMPREPLY[@]}}"
        )
        done = subprocess.run(
            [bash, "-c", f"{script}\n{ask}"],
            cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ},
        )  # fmt: skip
        return done.stdout.split()

    assert complete("workbench", "re") == ["record", "replay", "requests"]
    assert "--no-embed" in complete("workbench", "record", "--no")
    assert complete("workbench", "replay", "bo") == ["boot.wbt"]
    assert complete("workbench", "record", "--kernel", "bo") == ["boot.wbt"]
    assert complete("workbench", "completion", "f") == ["fish"]
