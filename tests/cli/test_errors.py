"""Wrong usage and bad input: one sentence on stderr, the right status, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Run, environment
from workbench.cli.text import parse_count, parse_size, safe
from workbench.errors import UsageError
from workbench.trace.container import encode_prelude

USAGE = [
    ([], "the following arguments are required: COMMAND"),
    (["frobnicate"], "invalid choice: 'frobnicate'"),
    (["record"], "expected --kernel FILE, or --bios seabios"),
    (["record", "--initrd", "i", "--bios", "b"], "expected --initrd with --kernel"),
    (["record", "--kernel", "k", "--boot", "c"], "expected --boot with --bios"),
    (["record", "--bios", "b", "--boot", "x"], "expected up to three of acdn to boot from"),
    (["record", "--bios", "b", "--boot", "c,twice=d"], "expected --boot with order=, "),
    (["record", "--bios", "b", "--boot", "menu=yes"], "expected --boot menu=on or menu=off"),
    (["record", "--bios", "b", "--boot", "splash-time=1s"], "in milliseconds, not '1s'"),
    (["record", "-kernel", "vmlinuz", "-m", "lots"], "expected a memory size such as 256"),
    (["record", "-kernel", "vmlinuz", "-m", "100G"], "expected 1 MiB to 64 GiB of RAM"),
    (["record", "-kernel", "vmlinuz", "--nic", "rtl8139"], "expected --nic with a model (e1000"),
    (["record", "--kernel", "vmlinuz", "--max-insns", "0"], "expected a count of instructions"),
    (["record", "--kernel", "vmlinuz", "--timeout", "-3"], "expected --timeout of more than 0"),
    (["record", "--kernel", "vmlinuz", "--ps-per-insn", "0"], "expected --ps-per-insn from 1"),
    (["record", "--kernel", "vmlinuz", "--seed", "-1"], "expected --seed from 0 to"),
    (["record", "--kernel", "vmlinuz", "--rtc", "tomorrow"], "expected --rtc now"),
    (["record", "--kernel", "vmlinuz", "--serial", "tcp:1"], "expected --serial stdio, none or"),
    (["record", "--kernel", "vmlinuz", "-o", "vmlinuz"], "would overwrite vmlinuz"),
    (["replay"], "the following arguments are required: TRACE"),
    (["completion", "tcsh"], "invalid choice: 'tcsh'"),
    (["stat", "x"], "(did you mean stats?) (see 'workbench --help')"),
    (["info", "x", "--jsn"], "--jsn (did you mean --json?) (see 'workbench info --help')"),
    (["tui", "x", "y", "z", "--w"], "unrecognized arguments: "),
    (["stats", "x", "--top", "y"], "expected a whole number for --top, not 'y'"),
    (["stats", "x", "--by", "registr"], "not 'registr' (did you mean register?)"),
]
BAD_INPUT = [
    (["info", "nothing.wbt"], "nothing.wbt: no such file or directory"),
    (["info", "."], "is a directory"),
    (["info", "vmlinuz"], "this is not a Workbench trace"),
    (["replay", "empty"], "the file is empty"),
    (["replay", "newer"], "has format version 7, a newer one: this Workbench reads versions"),
    (["record", "--kernel", "missing"], "the kernel missing: no such file or directory"),
    (["record", "--kernel", "vmlinuz", "--initrd", "x"], "the initrd x: no such file"),
    (["record", "--kernel", "vmlinuz", "-o", "no/such/t"], "the trace cannot be written: no such"),
    (["record", "--kernel", "vmlinuz", "--serial", "file:no/such"], "the serial file no/such"),
]


def one_sentence(text: str) -> bool:
    return text.startswith("workbench: ") and text.count("\n") == 1 and "Traceback" not in text


@pytest.mark.parametrize(("args", "message"), USAGE, ids=lambda value: str(value)[:40])
def test_wrong_usage(workbench: Run, kernel: str, args: list[str], message: str) -> None:
    done = workbench(*args)
    assert message in done.stderr
    assert one_sentence(done.stderr)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(("args", "message"), BAD_INPUT, ids=lambda value: str(value)[:40])
def test_bad_input(
    workbench: Run, kernel: str, tmp_path: Path, args: list[str], message: str
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "newer").write_bytes(encode_prelude(7))
    done = workbench(*args, fake=True)
    assert message in done.stderr
    assert one_sentence(done.stderr)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_file_name_that_would_write_to_the_terminal(workbench: Run) -> None:
    done = workbench("info", "\x1b]0;title\x07\n")
    assert one_sentence(done.stderr)
    assert "\x1b" not in done.stderr
    assert "\\x1b" in done.stderr


def test_debug_shows_the_traceback(workbench: Run) -> None:
    done = workbench("--debug", "info", "nothing.wbt")
    assert "Traceback" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("command", ["", "record", "replay", "info", "demo", "doctor"])
def test_help_has_examples(workbench: Run, command: str) -> None:
    done = workbench(*command.split(), "--help")
    assert done.returncode == 0
    assert "examples:\n  workbench" in done.stdout


def test_the_command_line_starts_fast(workbench: Run) -> None:
    times = []
    for _ in range(3):
        start = time.monotonic()
        workbench("--version")
        times.append(time.monotonic() - start)
    assert min(times) < 0.5


@pytest.mark.parametrize(
    ("text", "size"),
    [("256", 256 << 20), ("512M", 512 << 20), ("1G", 1 << 30), ("65536k", 64 << 20),
     ("2GiB", 2 << 30), ("1 g", 1 << 30)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "0", "1X", "1.5G", "99999999T"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected a memory size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "count"), [("5", 5), ("1.2G", 1_200_000_000), ("10M", 10**7), ("1_000", 1000)]
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


def test_safe() -> None:
    assert safe("a\tb\x1b[1m\u202e ü") == "a\\x09b\\x1b[1m\\x202e ü"


def test_streams_that_are_closed() -> None:
    command = f"{sys.executable} -m workbench"
    for line, status in (("--version >&-", 0), ("info x <&- >&- 2>&-", 1), ("info x 2>&-", 1)):
        done = subprocess.run(
            ["sh", "-c", f"{command} {line}"], env=environment(), capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@pytest.mark.parametrize(
    "module",
    [
        ["workbench", "info", str(ROOT / "traces" / "v1-demo.wbt")],
        pytest.param(["guests", "cloud"], marks=pytest.mark.guest),
    ],
)
def test_a_reader_that_has_enough(module: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", *module], env=environment(), stdout=write, stderr=subprocess.PIPE,
        check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
