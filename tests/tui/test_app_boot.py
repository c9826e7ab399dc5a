"""The real application on boots of Debian with drivers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from guests.initramfs import run_option
from tests.cli.conftest import command, environment
from tests.trace.test_boot import Guests
from tests.tui.terminal import Terminal

pytestmark = [pytest.mark.guest, pytest.mark.slow]
TAKES = r"device takes next +(\d+) "
LONG = 120


@pytest.fixture(scope="module")
def boots(guest: Guests, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two boots; the second reads one block more from its virtio disk."""
    files = guest("cloud")
    folder = tmp_path_factory.mktemp("boots")
    (folder / "disk.raw").write_bytes(bytes(1 << 20))
    for name, blocks in (("good", 4), ("bad", 5)):
        script = f"dd if=/dev/vda of=/dev/null bs=4k iflag=direct count={blocks}"
        subprocess.run(
            [
                *command(False), "record", "--kernel", str(files.kernel), "--initrd",
                str(files.images["drivers"]), "-m", "128", "--seed", "1", "--rtc", "2026-01-01",
                "--append", f"console=ttyS0 quiet {run_option(script)}", "--serial", "none", "-q",
                "--drive", "file=disk.raw,if=virtio,format=raw", "-o", f"{name}.wbt",
            ],
            cwd=folder, env=environment(), check=True, timeout=240,
        )  # fmt: skip
    return str(folder / "good.wbt"), str(folder / "bad.wbt")


def started(tmp_path: Path, *args: str, columns: int, rows: int) -> Terminal:
    variables = environment(
        TERM="xterm-256color", XDG_CONFIG_HOME=str(tmp_path), XDG_STATE_HOME=str(tmp_path)
    )
    return Terminal([sys.executable, "-m", "workbench", "tui", *args], variables, columns, rows)


def test_an_index_goes_back_across_a_notification(tmp_path: Path, boots: tuple[str, str]) -> None:
    t = started(tmp_path, boots[0], "--at", "request:drive0/3", columns=160, rows=80)
    try:
        t.wait("accesses")
        t.send("/device=drive0 and register=queue_notify*\r")
        t.wait(r"> *[\d,]+ .*drive0 +queue_notify0 <-", LONG)
        t.send("3")
        t.send(":inspect drive0\r")
        before = re.findall(r"\d+", t.wait(TAKES, LONG))[-1]
        t.send("s")
        after = str(int(before) + 1)
        t.wait(TAKES.replace(r"(\d+)", after), LONG)
        t.send("S")
        t.wait(TAKES.replace(r"(\d+)", before), LONG)
        t.send("q")
        assert t.end() == 0
        assert t.restored()
    finally:
        t.close()


def test_two_boots_side_by_side(tmp_path: Path, boots: tuple[str, str]) -> None:
    t = started(tmp_path, *boots, columns=160, rows=48)
    try:
        t.wait(r"\d+ differences?; d goes", LONG)
        t.send("d")
        t.wait("difference 1 of", LONG)
        t.wait(r"states +A at [\d,]+ +B at [\d,]+", LONG)
        t.resize(100, 30)
        t.wait(r"rip +[0-9a-f]{16} +\| rip", LONG)
        t.send("q")
        assert t.end() == 0
        assert t.restored()
    finally:
        t.close()
