"""What a monitor command is: name, usage, help, and what may follow it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Command", "Wrong", "complete", "number", "overview", "usage"]


class Wrong(Exception):
    """A command that cannot be done; the text says why."""


def number(text: str) -> int:
    """A number as in Python: 12, 0x1F0; raises `Wrong`."""
    try:
        return int(text, 0)
    except ValueError:
        raise Wrong(f"expected a number, not {text!r:.80}") from None


@dataclass(frozen=True, slots=True)
class Command:
    """One command; `words` gives what may come next after the words given so far."""

    usage: tuple[str, ...]
    help: str
    run: Callable[[list[str]], str]
    words: Callable[[list[str]], Iterable[str]] = lambda given: ()
    moves: bool = False
    """Does gdb have to look again at registers and memory?"""


def overview(commands: Mapping[str, Command]) -> str:
    """One line for each way to use each command."""
    lines = []
    for command in commands.values():
        first = command.help.partition("\n")[0]
        width = 48
        for n, text in enumerate(command.usage):
            lines.append(f"{text:<{width - 1}} {first}" if n == 0 else text)
    return "\n".join(
        [
            *lines,
            "Positions: COUNT (1.2G), 50%, start, end, access:N, request:ide0/17, bookmark:NAME.",
            "After seek and drop gdb has to look again: 'workbench gdb' does that, else say",
            "maintenance flush register-cache",
        ]
    )


def usage(commands: Mapping[str, Command], name: str) -> str:
    """The help of one command."""
    command = commands.get(name)
    if command is None:
        raise Wrong(f"no command {name!r}; try: monitor help")
    return "\n".join([*command.usage, command.help])


def complete(commands: Mapping[str, Command], line: str) -> list[str]:
    """What the last word of a line may become."""
    words = line.split(" ")
    given, begun = [w for w in words[:-1] if w], words[-1]
    if not given:
        candidates: Iterable[str] = commands
    else:
        command = commands.get(given[0])
        candidates = command.words(given[1:]) if command is not None else ()
    return sorted({c for c in candidates if c.startswith(begun)})
