"""Options for symbols, shared by the commands that read a trace."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable


def add_symbols(parser: argparse.ArgumentParser) -> None:
    """Add `--symbols` and `--symbol-file`."""
    parser.add_argument(
        "--symbols",
        action="store_true",
        help="name the guest's functions, modules too, from the kernel in guest memory"
        " (the first time, the trace is replayed for it)",
    )
    parser.add_argument(
        "--symbol-file", metavar="FILE", help="take the names from a System.map or an ELF file"
    )
    add_symbols_at(parser)


def add_symbols_at(parser: argparse.ArgumentParser) -> None:
    """Add `--symbols-at`."""
    parser.add_argument(
        "--symbols-at", metavar="N", help="modules as they were at this instruction (default: end)"
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """What the options ask for, to be loaded for any trace in any process."""

    wanted: bool
    file: str | None
    at_icount: int | None

    def load(self, trace: Trace, always: bool = False) -> SymbolTable | None:
        """Load the symbols; None when none are asked for."""
        from workbench.cli import engine
        from workbench.cli.text import complain

        if not (self.wanted or always):
            return None
        from workbench.trace import symbols

        if self.file is not None:
            return symbols.of_file(self.file, trace, engine.prepare)
        table = symbols.of_trace(trace, self.at_icount, engine.prepare)
        if not len(table):
            complain("the guest has no symbols that could be found; addresses are shown instead")
        return table


def chosen(args: argparse.Namespace) -> Choice:
    """Read the options."""
    from workbench.cli.text import parse_count

    at_icount = None if args.symbols_at is None else parse_count(args.symbols_at)
    wanted = bool(args.symbols or args.symbols_at or args.symbol_file)
    return Choice(wanted, args.symbol_file, at_icount)


def load(args: argparse.Namespace, trace: Trace, always: bool = False) -> SymbolTable | None:
    """Load the symbols that the options ask for; None when they ask for none."""
    return chosen(args).load(trace, always)
