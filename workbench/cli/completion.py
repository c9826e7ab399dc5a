"""`workbench completion`: completion scripts for bash, zsh and fish, made from the parsers."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from workbench.errors import EXIT_OK

EXAMPLES = """\
examples:
  source <(workbench completion bash)
  workbench completion zsh > ~/.zfunc/_workbench
  workbench completion fish > ~/.config/fish/completions/workbench.fish
"""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a subcommand."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...]
    file: bool


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: its options and what its positional arguments may be."""

    name: str
    help: str
    options: tuple[Option, ...]
    choices: tuple[str, ...]
    files: bool


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "completion", help="print a completion script", description=__doc__, epilog=EXAMPLES
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    from workbench.cli.main import build_parser

    commands = collect(build_parser())
    make = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[args.shell]
    sys.stdout.write(make(commands))
    return EXIT_OK


def collect(parser: argparse.ArgumentParser) -> list[Command]:
    """Read the tree of parsers."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {item.dest: item.help or "" for item in action._choices_actions}
            return [
                _command(name, helps.get(name, ""), sub) for name, sub in action.choices.items()
            ]
    return []


def _command(name: str, text: str, parser: argparse.ArgumentParser) -> Command:
    options = []
    choices: list[str] = []
    files = False
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        known = tuple(str(choice) for choice in action.choices or ())
        if action.option_strings:
            metavar = str(action.metavar or "")
            options.append(
                Option(
                    tuple(action.option_strings),
                    action.help or "",
                    action.nargs != 0,
                    known,
                    "FILE" in metavar or "PATH" in metavar,
                )
            )
        elif known:
            choices += known
        else:
            files = True
    return Command(name, text, tuple(options), tuple(choices), files)


def bash_script(commands: list[Command]) -> str:
    """Make the script for bash."""
    names = " ".join(command.name for command in commands)
    cases = []
    for command in commands:
        words = [n for option in command.options for n in option.names] + list(command.choices)
        with_file = [n for o in command.options if o.takes_value for n in o.names if o.file]
        no_file = [n for o in command.options if o.takes_value for n in o.names if not o.file]
        lines = [f"    {command.name})"]
        if with_file:
            lines += [
                '      case "$prev" in',
                f"        {'|'.join(with_file)})",
                '          COMPREPLY=($(compgen -f -- "$cur")); return ;;',
                "      esac",
            ]
        if no_file:
            lines += [
                '      case "$prev" in',
                f"        {'|'.join(no_file)}) return ;;",
                "      esac",
            ]
        lines.append(f'      COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur"))')
        if command.files:
            lines.append('      [[ $cur != -* ]] && COMPREPLY+=($(compgen -f -- "$cur"))')
        lines.append("      ;;")
        cases.append("\n".join(lines))
    body = "\n".join(cases)
    return f"""\
# bash completion of workbench; made by `workbench completion bash`
_workbench() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} word command=
  COMPREPLY=()
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    [[ $word != -* ]] && {{ command=$word; break; }}
  done
  case "$command" in
    "") COMPREPLY=($(compgen -W "{names} --help --version --debug" -- "$cur")) ;;
{body}
  esac
}}
complete -o filenames -F _workbench workbench
"""


def zsh_script(commands: list[Command]) -> str:
    """Make the script for zsh."""
    listed = "\n".join(f"    {_quote(f'{c.name}:{c.help}')}" for c in commands)
    cases = []
    for command in commands:
        specs = [_zsh_option(option, name) for option in command.options for name in option.names]
        if command.choices:
            specs.append(_quote(f"1:argument:({' '.join(command.choices)})"))
        if command.files:
            specs.append(_quote("*:file:_files"))
        joined = " \\\n        ".join(specs)
        cases.append(f"    {command.name})\n      _arguments \\\n        {joined} ;;")
    body = "\n".join(cases)
    return f"""\
#compdef workbench
# zsh completion of workbench; made by `workbench completion zsh`
_workbench() {{
  local -a commands
  commands=(
{listed}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{body}
  esac
}}
compdef _workbench workbench
"""


def _zsh_option(option: Option, name: str) -> str:
    text = option.help.replace("[", "(").replace("]", ")").replace(":", " ")
    spec = f"{name}[{text}]"
    if option.takes_value:
        action = f"({' '.join(option.choices)})" if option.choices else "_files"
        spec += f":value:{action if option.choices or option.file else ' '}"
    return _quote(spec)


def fish_script(commands: list[Command]) -> str:
    """Make the script for fish."""
    lines = [
        "# fish completion of workbench; made by `workbench completion fish`",
        "complete -c workbench -f",
    ]
    for command in commands:
        lines.append(
            f"complete -c workbench -n __fish_use_subcommand -a {command.name}"
            f" -d {_quote(command.help)}"
        )
    for command in commands:
        start = f"complete -c workbench -n '__fish_seen_subcommand_from {command.name}'"
        if command.files:
            lines.append(f"{start} -F")
        if command.choices:
            lines.append(f"{start} -a {_quote(' '.join(command.choices))}")
        for option in command.options:
            flags = " ".join(_fish_name(name) for name in option.names)
            value = " -r" if option.takes_value else ""
            value += " -F" if option.file else ""
            lines.append(f"{start} {flags}{value} -d {_quote(option.help)}")
    return "\n".join(lines) + "\n"


def _fish_name(name: str) -> str:
    if name.startswith("--"):
        return f"-l {name[2:]}"
    return f"-s {name[1:]}" if len(name) == 2 else f"-o {name[1:]}"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "’").replace("\n", " ") + "'"
