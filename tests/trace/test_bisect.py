"""The first instruction after which two runs differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trace import guests
from workbench.cli.main import main
from workbench.core.config import MachineConfig
from workbench.errors import UsageError
from workbench.firmware import demo
from workbench.trace import bisect
from workbench.trace.guest import Guest
from workbench.trace.reader import Trace, open_trace
from workbench.trace.session import Limits, Recording
from workbench.trace.timeline import Timeline

CONFIG = MachineConfig(ram_bytes=8 << 20, rtc_epoch_s=1_767_225_600, seed=1)


def record(
    path: Path, guest: Guest, config: MachineConfig = CONFIG, typed: bytes = b"", at: int = 0
) -> Trace:
    """Record to the end; `typed` arrives when `at` instructions have retired."""
    recording = Recording(str(path), config.to_json(), guest, limits=Limits(icount=10_000_000))
    if typed:
        recording.machine.run(at)
        recording.machine.inputs.post("com1", "rx", typed)
    recording.run()
    return open_trace(path)


def test_an_input_that_differs(tmp_path: Path) -> None:
    """Both echo a letter; the echo shows it many instructions after the input came."""
    a = record(tmp_path / "a", guests.ECHO, typed=b"xq", at=10_000)
    b = record(tmp_path / "b", guests.ECHO, typed=b"yq", at=10_000)
    step = bisect.find(a, b)
    assert step is not None
    assert step.pc_a == step.pc_b
    assert step.bits == 32
    assert any(change.name == "com1" for change in step.changes)
    # The digests, which know nothing of the search, say the same.
    left, right = Timeline(a), Timeline(b)
    for count, equal in ((step.icount, True), (step.icount + 1, False)):
        left.seek(count)
        right.seek(count)
        assert (left.machine.digest() == right.machine.digest()) is equal


def test_a_patched_guest_differs_where_the_patch_is_executed(tmp_path: Path) -> None:
    image = guests.CHIPS.kernel
    at = image.rindex(bytes.fromhex("b003e6f4"))  # mov al, 3; out 0xf4, al
    patched = Guest(image[: at + 1] + b"\x05" + image[at + 2 :], kernel_path="guest.elf")
    a, b = record(tmp_path / "a", guests.CHIPS), record(tmp_path / "b", patched)
    step = bisect.find(a, b)
    assert step is not None
    assert step.code_a[:2] == bytes.fromhex("b003")
    assert step.code_b[:2] == bytes.fromhex("b005")
    assert {change.name: (change.a, change.b) for change in step.changes} == {
        "gpr[0]": (step.changes[0].a, step.changes[0].b)
    }
    assert step.changes[0].a.endswith("3")
    assert step.changes[0].b.endswith("5")


def test_equal_runs_and_those_that_cannot_be_compared(tmp_path: Path) -> None:
    a, b = (record(tmp_path / name, guests.CHIPS) for name in "ab")
    assert bisect.find(a, b) is None
    larger = record(tmp_path / "c", guests.CHIPS, replace(CONFIG, ram_bytes=16 << 20))
    with pytest.raises(UsageError, match="the same memory"):
        bisect.find(a, larger)


def test_diff_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The date differs from the start; what counts is who first reads it."""
    for name, day in (("a", 0), ("b", 86400 * 40)):
        config = replace(CONFIG, rtc_epoch_s=CONFIG.rtc_epoch_s + day)
        record(tmp_path / name, Guest(demo.image(), kernel_path="demo.elf"), config)
    paths = [str(tmp_path / name) for name in "ab"]
    assert main(["diff", *paths, "--instruction", "--json", "--summary"]) == 1
    found = json.loads(capsys.readouterr().out)["first_different_instruction"]
    assert found["a"]["disassembly"] == found["b"]["disassembly"] == "in al, 0x71"
    assert main(["diff", *paths, "--instruction", "--summary"]) == 1
    shown = capsys.readouterr().out
    assert f"begins at {found['icount']:,}" in shown
    assert main(["diff", paths[0], paths[0], "--instruction"]) == 0
    assert "the same at each instruction" in capsys.readouterr().out
