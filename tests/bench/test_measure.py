"""Processes are measured from outside."""

import sys
from pathlib import Path

from bench.measure import run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_time_memory_and_status(tmp_path: Path) -> None:
    code = "import time; x = b'x' * (100 << 20); time.sleep(0.2)"
    outcome = run(python(code), log=tmp_path / "log", timeout_s=60)
    assert outcome.status == 0
    assert outcome.error == ""
    assert outcome.seconds >= 0.2
    assert outcome.peak_bytes > 100 << 20


def test_a_failure_comes_with_its_last_line(tmp_path: Path) -> None:
    code = "import sys; print('some'); sys.exit('the reason')"
    outcome = run(python(code), log=tmp_path / "log", timeout_s=60)
    assert (outcome.status, outcome.error) == (1, "the reason")


def test_what_hangs_is_killed(tmp_path: Path) -> None:
    outcome = run(python("import time; time.sleep(60)"), log=tmp_path / "log", timeout_s=0.5)
    assert outcome.status == -9
    assert outcome.seconds < 30
