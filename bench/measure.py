"""Run one process and measure it from outside."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one process went.

    `seconds` is wall time from the start of the process to its end; `peak_bytes` the largest
    resident set that it had (VmHWM).
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    status: int
    error: str


def run(command: list[str], *, log: Path, timeout_s: float) -> Outcome:
    """Run `command` with its output in `log`; it is killed after `timeout_s` seconds."""
    with log.open("wb") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        try:
            _, wait_status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(wait_status)
    return Outcome(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
        status=process.returncode,
        error=_last_line(log) if process.returncode else "",
    )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
