"""Tidy the assembly of stencils, so that the usual way through one is straight.

LLVM ends a stencil in several tail calls.  The rewrites of each function's text:

* a branch around or to a lone ``jmp SYMBOL`` becomes a conditional jump to that symbol;
* ``jcc CONT`` before ``jmp SYMBOL`` is turned round;
* a piece of code that ends in ``jmp CONT`` is moved to the end, where the linker drops the jump.

A piece runs from a label (or the entry) to the next unconditional jump or return.
"""

from __future__ import annotations

import re

INVERSE = {
    a: b
    for x, y in (
        ("je", "jne"),
        ("jb", "jae"),
        ("ja", "jbe"),
        ("js", "jns"),
        ("jl", "jge"),
        ("jg", "jle"),
        ("jo", "jno"),
        ("jp", "jnp"),
    )
    for a, b in ((x, y), (y, x))
}
LABEL = re.compile(r"^(\.LBB\w+):")
JCC = re.compile(r"^\t(j[a-z]+)\t(\S+)$")
WIDE = re.compile(r"^\tmovabsq\t(\$H_DISP), (%\w+)$")
ADD = re.compile(r"^\taddq\t(H_\w+\(%r12\)), (%\w+)$")
FUNCTION = re.compile(r"^([sx]_\w+):")
END = re.compile(r"^\.Lfunc_end\w+:")


def tidy(assembly: str) -> str:
    """Rewrite every stencil of a module's assembly text."""
    out: list[str] = []
    body: list[str] | None = None
    for line in assembly.split("\n"):
        if body is None:
            out.append(line)
            if FUNCTION.match(line):
                body = []
        elif END.match(line):
            out += tidy_function(
                [x for x in body if not x.lstrip().startswith(("#", ".cfi", ".p2align"))]
            )
            out.append(line)
            body = None
        else:
            body.append(line)
    return "\n".join(out)


def tidy_function(lines: list[str]) -> list[str]:
    """Rewrite the body of one function."""
    lines = [line.split("#")[0].rstrip() for line in lines]
    lines = [line for line in lines if line]
    lines = _fold(lines)
    pieces = _pieces(lines)
    last = next((i for i in range(len(pieces) - 1, 0, -1) if pieces[i][-1] == "\tjmp\tCONT"), None)
    if last is not None and pieces[-1][-1] != "\tjmp\tCONT" and LABEL.match(pieces[last][0]):
        pieces.append(pieces.pop(last))
    return [line for piece in pieces for line in piece]


def _target(line: str, name: str) -> str | None:
    m = JCC.match(line)
    return m.group(2) if m and m.group(1) == name else None


def _fold(lines: list[str]) -> list[str]:
    # a label whose code is only a jump to a symbol
    alias: dict[str, str] = {}
    for i, line in enumerate(lines):
        m = LABEL.match(line)
        if m:
            j = i + 1
            while j < len(lines) and LABEL.match(lines[j]):
                j += 1
            target = _target(lines[j], "jmp") if j < len(lines) else None
            if target and target != "CONT" and not target.startswith((".", "*")):
                alias[m.group(1)] = target
    out: list[str] = []
    for line in lines:
        m = JCC.match(line)
        if m and m.group(2) in alias:
            line = f"\t{m.group(1)}\t{alias[m.group(2)]}"
        out.append(line)
    # jcc over a jump
    i = 0
    while i + 2 < len(out):
        m = JCC.match(out[i])
        target = _target(out[i + 1], "jmp")
        label = LABEL.match(out[i + 2])
        if (
            m
            and m.group(1) in INVERSE
            and target
            and not target.startswith("*")
            and label
            and m.group(2) == label.group(1)
        ):
            out[i : i + 2] = [f"\t{INVERSE[m.group(1)]}\t{target}"]
        i += 1
    # a branch to CONT before a jump elsewhere
    for i in range(len(out) - 1):
        m = JCC.match(out[i])
        target = _target(out[i + 1], "jmp")
        if (
            m
            and m.group(1) in INVERSE
            and m.group(2) == "CONT"
            and target
            and not target.startswith((".", "*"))
        ):
            out[i : i + 2] = [f"\t{INVERSE[m.group(1)]}\t{target}", "\tjmp\tCONT"]
    # a displacement is shorter as an immediate
    for i in range(len(out) - 1):
        m = WIDE.match(out[i])
        n = ADD.match(out[i + 1])
        if m and n and m.group(2) == n.group(2):
            out[i : i + 2] = [
                f"\tmovq\t{n.group(1)}, {m.group(2)}",
                f"\taddq\t{m.group(1)}, {m.group(2)}",
            ]
    # code that nobody reaches
    used = {m.group(2) for line in out if (m := JCC.match(line))} | set(
        re.findall(r"\.LBB\w+", "\n".join(line for line in out if not LABEL.match(line)))
    )
    result: list[str] = []
    dead = False
    for line in out:
        label = LABEL.match(line)
        if label:
            if label.group(1) not in used:
                continue
            dead = False
        if not dead:
            result.append(line)
        if _ends(line):
            dead = True
    return result


def _ends(line: str) -> bool:
    return line.startswith(("\tjmp\t", "\tjmpq\t", "\tret", "\tud2"))


def _pieces(lines: list[str]) -> list[list[str]]:
    pieces: list[list[str]] = [[]]
    for line in lines:
        pieces[-1].append(line)
        if _ends(line):
            pieces.append([])
    return [p for p in pieces if p]
