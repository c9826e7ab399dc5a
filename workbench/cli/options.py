"""Options that several subcommands share."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from workbench.cli.terminal import open_serial_file
from workbench.errors import UsageError

CONSOLE_DEVICE = "com1"


def add_serial(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--serial`."""
    parser.add_argument(
        "--serial",
        "-serial",
        metavar="stdio|none|file:PATH",
        help=f"{what} (default: stdio; a stdin that is a pipe is read only when this is given)",
    )


def serial_output(text: str | None) -> int | None:
    """Turn the value of `--serial` into a file descriptor for output; None for none."""
    if text in (None, "stdio"):
        return 1
    if text == "none":
        return None
    assert text is not None
    kind, _, path = text.partition(":")
    if kind == "file" and path:
        return open_serial_file(path)
    raise UsageError(f"expected --serial stdio, none or file:PATH, not {text!r}")


def rtc_epoch_s(text: str | None) -> int:
    """Turn the value of `--rtc` into seconds since 1970; the default is now."""
    if text in (None, "now", "utc"):
        return int(datetime.now(UTC).timestamp())
    assert text is not None
    value = text.removeprefix("base=")
    try:
        if value.isdecimal():
            epoch = int(value)
        else:
            moment = datetime.fromisoformat(value)
            epoch = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        epoch = -1
    if not 0 <= epoch < 253402300800:
        raise UsageError(
            f"expected --rtc now, 2026-11-22T12:00:00 or seconds since 1970, not {text!r}"
        )
    return epoch
