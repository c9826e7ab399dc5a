"""Pages of `docs/devices` from the register maps: `python -m workbench.hw.regdoc docs/devices`.

Every module of `workbench.hw` that defines register maps gets a page: the module's docstring, then
a table for each map. What a page says is what the emulation does; nothing is written by hand.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import workbench.hw
from workbench.core.regs import Access, Field, Reg, RegBank, RegMap

__all__ = ["index", "main", "maps_of", "modules", "page", "pages"]


def modules() -> Iterator[ModuleType]:
    """All modules of `workbench.hw`, by name."""
    found = pkgutil.walk_packages(workbench.hw.__path__, "workbench.hw.")
    for name in sorted(info.name for info in found):
        yield importlib.import_module(name)


def maps_of(module: ModuleType) -> list[RegMap]:
    """The register maps that a module defines, in the order of its source."""
    found: dict[int, RegMap] = {}
    for value in vars(module).values():
        if isinstance(value, RegMap):
            found[id(value)] = value
        elif inspect.isclass(value) and issubclass(value, RegBank):
            own = vars(value).get("MAP")
            if value.__module__ == module.__name__ and isinstance(own, RegMap):
                found[id(own)] = own
    return list(found.values())


def _runs(regmap: RegMap) -> Iterator[list[Reg]]:
    """Registers in order of offset; those of one array together."""
    run: list[Reg] = []
    for reg in sorted(regmap.regs, key=lambda r: (r.offset, r.access is Access.WO, r.name)):
        if run and reg.index is not None and reg.attr == run[-1].attr and reg.index > 0:
            run.append(reg)
            continue
        if run:
            yield run
        run = [reg]
    if run:
        yield run


def _interleaved(regmap: RegMap) -> list[list[Reg]]:
    """Like `_runs`, for arrays whose elements alternate with those of others too."""
    arrays: dict[str, list[Reg]] = {}
    result: list[list[Reg]] = []
    for run in _runs(regmap):
        first = run[0]
        if first.index is None:
            result.append(run)
        elif first.attr in arrays:
            arrays[first.attr].extend(run)
        else:
            arrays[first.attr] = run
            result.append(run)
    return result


def _name(run: list[Reg]) -> str:
    if len(run) == 1:
        return run[0].name
    stem = run[0].name.removesuffix(str(run[0].index))
    return f"{stem}{run[0].index}–{run[-1].index}"


def _offset(run: list[Reg]) -> str:
    if len(run) == 1:
        return f"`{run[0].offset:#04x}`"
    stride = run[1].offset - run[0].offset
    return f"`{run[0].offset:#04x}` + {stride:#x}·n"


def _bits(field: Field) -> str:
    return str(field.lsb) if field.width == 1 else f"{field.lsb + field.width - 1}:{field.lsb}"


def _fields(reg: Reg) -> str:
    parts = []
    for field in sorted(reg.fields, key=lambda f: -f.lsb):
        text = f"{_bits(field)} {field.name}"
        if field.access is not None and field.access is not reg.access:
            text += f" ({field.access.value})"
        if field.values:
            text += ": " + ", ".join(f"{value} {name}" for value, name in field.values.items())
        parts.append(text)
    return "<br>".join(parts)


def _when(reg: Reg) -> str:
    notes = []
    if reg.when is not None:
        notes.append(f"when {reg.when}")
    if reg.match is not None:
        mask, value = reg.match
        notes.append(f"if value & {mask:#x} = {value:#x}")
    if reg.exact:
        notes.append(f"accesses of {reg.size} only")
    return "; ".join(notes)


def _table(regmap: RegMap) -> list[str]:
    lines = [
        "| offset | name | bytes | access | reset | fields | condition | reference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in _interleaved(regmap):
        reg = run[0]
        cells = (
            _offset(run),
            f"**{_name(run)}**",
            str(reg.size),
            reg.access.value,
            f"`{reg.reset:#x}`",
            _fields(reg),
            _when(reg),
            reg.ref,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _page_name(module: ModuleType) -> str:
    """`virtio-blk` for `workbench.hw.virtio.blk`."""
    return module.__name__.removeprefix("workbench.hw.").replace(".", "-")


def page(module: ModuleType) -> str | None:
    """The page of one module, None if it has no register map."""
    maps = maps_of(module)
    if not maps:
        return None
    lines = [f"# {_page_name(module)}", "", inspect.cleandoc(module.__doc__ or ""), ""]
    for regmap in maps:
        lines += [f"## Register map `{regmap.name}`", ""]
        about = f"{regmap.length:#x} bytes"
        lines += [f"{about}; {regmap.ref}." if regmap.ref else f"{about}.", ""]
        if regmap.select is not None:
            chooser = f"{regmap.select.reg.name}.{regmap.select.field}"
            lines += [f"Registers with a condition exist as {chooser} selects.", ""]
        lines += [
            f"`{i.data.name}` shows the register of map `{i.map.name}` that `{i.index.name}` names."
            for i in regmap.indirect
        ]
        lines += [""] if regmap.indirect else []
        lines += [*_table(regmap), ""]
    return "\n".join(lines).rstrip() + "\n"


def pages() -> dict[str, str]:
    """File name -> text of every page, the index included."""
    result = {}
    for module in modules():
        text = page(module)
        if text is not None:
            result[_page_name(module) + ".md"] = text
    result["README.md"] = index(result)
    return result


def index(found: dict[str, str]) -> str:
    """The list of pages with the first sentence of each."""
    lines = ["# Devices", "", "Made by `python -m workbench.hw.regdoc docs/devices`.", ""]
    for name, text in sorted(found.items()):
        first = text.split("\n\n")[1].replace("\n", " ")
        lines.append(f"- [{name.removesuffix('.md')}]({name}): {first}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write all pages into the directory given."""
    if len(arguments) != 1:
        print("usage: python -m workbench.hw.regdoc DIRECTORY", file=sys.stderr)
        return 2
    target = Path(arguments[0])
    target.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (target / name).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
