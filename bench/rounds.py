"""The order of the measurements: every tool once in each round, so that drift hits all alike."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.measure import Outcome, run
from bench.tools import Tool, trace_bytes
from bench.work import Work

TIMEOUT_S = 600.0


@dataclass(slots=True)
class Result:
    """All runs of one tool on one work."""

    work: Work
    tool: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    trace_bytes: list[int] = field(default_factory=list)
    failure: str = ""

    @property
    def median_s(self) -> float | None:
        """The median wall time, None if there is none."""
        return median(self.seconds) if self.seconds and not self.failure else None

    def add(self, outcome: Outcome, trace_bytes: int | None) -> None:
        """Take up one run that went well."""
        self.seconds.append(outcome.seconds)
        self.cpu_seconds.append(outcome.cpu_seconds)
        self.peak_bytes.append(outcome.peak_bytes)
        if trace_bytes is not None:
            self.trace_bytes.append(trace_bytes)


def measure(
    work: Work, tools: Sequence[Tool], rounds: int, say: Callable[[str], None]
) -> list[Result]:
    """Run `work` with each of `tools` in turn, `rounds` times.

    A tool that fails is not run again, and neither is one that needs its trace.
    """
    results = {tool.name: Result(work, tool.name) for tool in tools}
    for n in range(rounds):
        with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
            directory = Path(name)
            for tool in tools:
                result = results[tool.name]
                if tool.needs and (tool.needs not in results or results[tool.needs].failure):
                    result.failure = f"needs {tool.needs}"
                if result.failure:
                    continue
                outcome = _once(work, tool, directory, result)
                text = result.failure or f"{outcome.seconds:8.2f} s"
                say(f"{work.name:10} {n + 1}/{rounds}  {tool.name:18} {text}")
    return list(results.values())


def _once(work: Work, tool: Tool, directory: Path, result: Result) -> Outcome:
    console = directory / "console"
    console.unlink(missing_ok=True)
    command = tool.command(work, directory, console)
    outcome = run(command, log=directory / "log", timeout_s=TIMEOUT_S)
    trace = directory / tool.trace if tool.trace else None
    expected = 0 if tool.own_status else work.exit_status
    if outcome.status != expected:
        result.failure = f"exit status {outcome.status}: {outcome.error}"
    elif work.console_ends_with not in (console.read_bytes() if console.exists() else b""):
        result.failure = "the guest's last line is missing on the console"
    elif trace is not None and not trace.exists():
        result.failure = f"no trace {trace.name} was written"
    else:
        result.add(outcome, trace_bytes(trace) if trace else None)
    return outcome
