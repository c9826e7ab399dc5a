"""The `workbench` command: the tree of parsers, and the one handler of errors.

A subcommand is a module of this package with `add_parser(commands)`, which sets `run` as a default
of its parser; `run(args)` returns the exit status. Modules import at their top only what is cheap,
so that `workbench --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import workbench
from workbench.cli.text import complain, meant
from workbench.errors import EXIT_INTERRUPTED, UsageError, WorkbenchError, os_error_text

COMMANDS = (
    "record", "replay", "tui", "compare", "info", "log", "requests", "stats", "diff", "export",
    "query", "inspect", "checkpoint", "gdb", "drgn", "dump", "qtest",
    "demo", "doctor", "completion",
)  # fmt: skip

_NO_NUMBER = re.compile(r"argument (.+): invalid int value: ('.*')", re.DOTALL)
_NO_CHOICE = re.compile(r"argument .+: invalid choice: '(.*)' \(choose from (.+)\)", re.DOTALL)
Commands = "argparse._SubParsersAction[Parser]"
_Run = Callable[[argparse.Namespace], int]

EXAMPLES = """\
examples:
  workbench demo
  workbench record --kernel vmlinuz --initrd initrd.gz --append console=ttyS0 -o boot.wbt
  workbench replay boot.wbt
"""
EXIT_STATUS_TEXT = """\
exit status:
  0    done; for replay: identical to the recording
  1    bad input, or the guest came to a bad end (triple fault, halted for ever)
  2    wrong usage
  3    the replay diverged from the recording
  124  a limit (--timeout, --max-insns) ended the recording
  130  Ctrl-C or SIGTERM ended it
"""


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` instead of printing, so that all errors look the same."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # argparse's own arguments
        self._mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options may stand before a positional argument that may be missing: argparse, left to
        itself, takes it for missing then.
        """
        if self._mixing:
            return super().parse_known_args(args, namespace)
        if all(action.nargs != "?" for action in self._get_positional_actions()):
            found, rest = super().parse_known_args(args, namespace)
        else:
            self._mixing = True
            try:
                found, rest = self.parse_known_intermixed_args(args, namespace)
            finally:
                self._mixing = False
        if rest:  # said here, where it is known which options there are
            hint = meant(rest[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Report wrong usage."""
        wrong = _NO_NUMBER.fullmatch(message)
        if wrong:
            message = f"expected a whole number for {wrong[1]}, not {wrong[2]}"
        wrong = _NO_CHOICE.fullmatch(message)
        if wrong:
            message += meant(wrong[1], wrong[2].replace("'", "").split(", "))
        raise UsageError(f"{message} (see '{self.prog} --help')")


def build_parser() -> Parser:
    """Put the parsers of all subcommands together."""
    parser = Parser(
        prog="workbench",
        description="Boot a guest, record every register access, replay it bit for bit.",
        epilog=f"{EXAMPLES}\n{EXIT_STATUS_TEXT}",
    )
    parser.add_argument("--version", action="version", version=f"workbench {workbench.__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show the Python traceback of an error"
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name in COMMANDS:
        importlib.import_module(f"workbench.cli.{name}").add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        args = build_parser().parse_args([a for a in arguments if a != "--debug"])
        run: _Run = args.run
        status = run(args)
        sys.stdout.flush()
        return status
    except WorkbenchError as error:
        if debug:
            raise
        complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        if debug:
            raise
        complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who reads our output has gone; keep the interpreter's last flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except MemoryError:
        if debug:
            raise
        complain("there is not enough memory for this")
        return 1
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{os_error_text(error)}")
        return 1
    except Exception as error:
        if debug:
            raise
        complain(f"internal error ({type(error).__name__}: {error}); run with --debug to see where")
        return 1
