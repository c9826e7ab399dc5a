"""The set of real programs: what the guest runs, and the table."""

from bench.userland import WORKS, Timed, guest_script, to_markdown


def test_every_work_stands_between_its_marks() -> None:
    lines = guest_script().splitlines()
    for name, line in WORKS.items():
        at = lines.index(f"echo WB-GO {name}")
        assert lines[at + 1 : at + 1 + len(line.splitlines())] == line.splitlines()
        assert lines[at + 1 + len(line.splitlines())] == "echo WB-END"


def test_the_ratio_is_that_of_the_medians() -> None:
    times = [Timed("sort", "qemu", [1.0, 2.0, 9.0]), Timed("sort", "workbench", [1.0, 1.0, 0.5])]
    assert to_markdown(times).splitlines()[2] == "| sort | 2.00 s | 1.00 s | 0.50 |"
