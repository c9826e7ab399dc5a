"""A distribution's kernel, unmodified: recorded, replayed, typed to, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import guests
import workbench as api
from tests.cli.conftest import command, environment

pytestmark = [pytest.mark.guest, pytest.mark.slow]
Guests = Callable[[str], guests.Guest]


def arguments(guest: guests.Guest, image: str) -> list[str]:
    return [
        *command(False), "record", "--kernel", str(guest.kernel),
        "--initrd", str(guest.images[image]), "--append", "console=ttyS0", "-m", "256",
        "-o", "boot.wbt", "--timeout", "240",
    ]  # fmt: skip


def replay(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(False), "replay", "boot.wbt", "--serial", "none"],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("flavour", guests.FLAVOURS)
def test_boot_to_power_off(tmp_path: Path, guest: Guests, flavour: str) -> None:
    done = subprocess.run(
        arguments(guest(flavour), "boot"),
        cwd=tmp_path, env=environment(), capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"reboot: Power down" in done.stdout
    with api.open(tmp_path / "boot.wbt") as trace:
        assert trace.rows("accesses") > 30_000
        # The gate is 5 MB, the aim 2 MB.
        assert trace.file_bytes - trace.sizes()["images"] < 2_000_000
        assert trace.console_bytes("com1") == done.stdout
    again = replay(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "boot.wbt: identical: " in again.stderr


def test_a_shell_that_is_typed_to(tmp_path: Path, guest: Guests) -> None:
    process = subprocess.Popen(
        [*arguments(guest("cloud"), "shell"), "--serial", "stdio"],
        cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    seen = b""
    # The answers are not in what is typed, so the echo of the terminal is not mistaken for them.
    for wanted, typed in (
        (b"# ", b"echo $((6 * 7))7\n"),
        (b"427", b"cat /proc/interrupts | grep -c ttyS0\n"),
        (b"# ", b"exit\n"),
        (b"Power down", b""),
    ):
        while wanted not in seen:
            data = os.read(process.stdout.fileno(), 65536)
            assert data, seen
            seen += data
        seen = seen.split(wanted, 1)[1]
        if typed:
            process.stdin.write(typed)
            process.stdin.flush()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    with api.open(tmp_path / "boot.wbt") as trace:
        assert trace.rows("inputs") >= 3
        assert trace.end is not None
        # While nobody typed, the guest's clock did not run off.
        assert trace.end.time_ps / 1e12 < trace.end.wall_s + 10
    again = replay(tmp_path)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_boot_that_is_ended(tmp_path: Path, guest: Guests, number: int) -> None:
    process = subprocess.Popen(
        arguments(guest("cloud"), "boot"),
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    seen = b""
    while b"Memory:" not in seen:
        data = os.read(process.stdout.fileno(), 65536)
        assert data, seen
        seen += data
    time.sleep(0.6)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    with api.open(tmp_path / "boot.wbt") as trace:
        assert trace.state == ("closed" if number == signal.SIGINT else "cut")
        assert trace.rows("accesses") > 100
    again = replay(tmp_path)
    assert again.returncode == 0, again.stderr
