"""The report, from made-up measurements."""

from pathlib import Path

from bench.measure import Outcome
from bench.report import to_json, to_markdown
from bench.rounds import Result
from bench.work import Work

WORK = Work("boot", "a boot", Path("vmlinuz"), ram_mib=1, input_bytes=7)
MIB = 1 << 20


def results() -> list[Result]:
    qemu = Result(WORK, "qemu rr=record")
    ours = Result(WORK, "workbench record")
    broken = Result(WORK, "workbench replay", failure="exit status 3: it diverged")
    for seconds in (10.0, 12.0, 11.0):
        qemu.add(Outcome(seconds, seconds, 5 * MIB, 0, ""), 70 * MIB)
        ours.add(Outcome(seconds / 2, seconds, 3 * MIB, 0, ""), 2 * MIB)
    return [qemu, ours, broken]


def test_markdown_has_medians_and_ratios() -> None:
    text = to_markdown(results(), {"Processor": "a fast one"})
    assert text.startswith("Processor a fast one.\n")
    assert "| qemu rr=record | 11.00 s | 10.00-12.00 |" in text
    assert (
        "| workbench record | 5.50 s | 5.00-6.00 |  |  | 0.50 | 3.0 MiB | 2.0 MiB | 2.0 MiB |"
        in text
    )
    assert "| workbench replay | exit status 3: it diverged |" in text


def test_json_has_every_run() -> None:
    data = to_json(results(), {})
    first = data["results"][0]
    assert first["seconds"] == [10.0, 12.0, 11.0]
    assert first["median_s"] == 11.0
    assert first["input_bytes"] == 7
    assert data["results"][2]["median_s"] is None
