"""Options that several subcommands share."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from workbench.cli.terminal import open_serial_file
from workbench.errors import UsageError

CONSOLE_DEVICE = "com1"


MOST_SERIAL_PORTS = 4


class _Serial(argparse.Action):
    """The first `--serial` is the console, those after it are further ports."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest, None) is None:
            setattr(namespace, self.dest, values)
        else:
            namespace.more_serial = [*namespace.more_serial, values]


def add_serial(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--serial`."""
    parser.set_defaults(more_serial=[])
    parser.add_argument(
        "--serial",
        "-serial",
        action=_Serial,
        metavar="stdio|none|file:PATH",
        help=f"{what} (default: stdio; a stdin that is a pipe is read only when this is given)",
    )


def more_serial_outputs(texts: list[str]) -> dict[str, int]:
    """File descriptors of the serial ports after the first, by device; raises UsageError."""
    if len(texts) >= MOST_SERIAL_PORTS:
        raise UsageError(f"expected at most {MOST_SERIAL_PORTS} serial ports")
    out: dict[str, int] = {}
    for n, text in enumerate(texts, start=2):
        if text == "stdio":
            raise UsageError("expected --serial stdio for the first serial port only")
        fd = serial_output(text)
        if fd is not None:
            out[f"com{n}"] = fd
    return out


def serial_output(text: str | None, option: str = "--serial") -> int | None:
    """Turn the value of `--serial`, or of an `option` of its kind, into a file descriptor for
    output; None for none.
    """
    if text in (None, "stdio"):
        return 1
    if text == "none":
        return None
    assert text is not None
    kind, _, path = text.partition(":")
    if kind == "file" and path:
        return open_serial_file(path)
    raise UsageError(f"expected {option} stdio, none or file:PATH, not {text!r}")


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
