"""Options of the commands that take many traces, and how their problems are told."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.errors import InputFileError, UsageError

if TYPE_CHECKING:
    from workbench.trace.fleet import Result

T = TypeVar("T")


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Add `--jobs` and `--scheduler`."""
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        help="so many processes at once (of many traces by default as many as cores)",
    )
    parser.add_argument(
        "--scheduler", metavar="URL", help="let the Dask cluster of this scheduler do the work"
    )


def check(args: argparse.Namespace) -> None:
    """Refuse what makes no sense."""
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"expected --jobs of 1 or more, not {args.jobs}")


def each(
    args: argparse.Namespace, work: Callable[..., T], paths: Sequence[str], *arguments: Any
) -> Iterator[Result[T]]:
    """Do the work on each trace, with progress on a terminal."""
    from workbench.cli import text
    from workbench.trace import fleet

    results = fleet.each(work, paths, *arguments, jobs=args.jobs, scheduler=args.scheduler)
    if len(paths) < 2:
        yield from results
        return
    with text.progress("traces", len(paths)) as advance:
        for result in results:
            advance()
            yield result


def values(results: Iterator[Result[T]]) -> tuple[list[tuple[str, T]], int]:
    """Give what came out with its path, and how many traces have failed; each is told.

    Raises `InputFileError` when there is nothing but one failure.
    """
    from workbench.cli.text import complain

    found, problems = [], []
    for result in results:
        if result.value is None:
            problems.append(result.problem)
        else:
            found.append((result.path, result.value))
    if not found and len(problems) == 1:
        raise InputFileError(problems[0])
    for problem in problems:
        complain(problem)
    return found, len(problems)
