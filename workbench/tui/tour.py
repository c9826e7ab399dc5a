"""The two-minute tour: a few lines above the status line, one step after the other."""

from __future__ import annotations

from textwrap import wrap
from typing import Final

from workbench.tui.lines import Line, clip

STEPS: Final = (
    ("This is a recorded run: every access of the guest to a device, in order.",
     "Above: where in the run which device was busy. Try: a goes to the next access, A back."),
    ("> marks the access that the next instruction makes; code and registers are of that moment.",
     "Try: s executes it, S takes it back. What has changed has a *."),
    ("/ shows only some accesses. Try: / device=pit Enter, then n and N go from one to the next.",
     "Tab completes names; Esc shows all again."),
    ("i goes to the next interrupt, b and f to the next block and function; capitals go back.",
     "Each can be taken back: [ returns to where you were before the last jump."),
    ("1 to 9 are layouts; 5 has what the guest had printed by now. Tab gives another pane the "
     "keys, z enlarges it. 3 has a device inspector; p goes to the next device.",
     "Try: Tab until it has the keys. On a line Enter goes to what it stands for, w to who wrote "
     "that."),
    ("In layout 4, put the cursor on a byte of memory and press w: you are where it was written.",
     ":as shows structures there (Tab lists them); y copies the position for --at."),
    ("A guest can be recorded here as well: workbench tui --record --kernel vmlinuz -o boot.wbt",
     "Esc pauses it, e types into its console, all keys go back, c goes on; :stop ends it."),
    ("That is all. ? lists every key, : takes commands, q leaves.",
     "A trace of your own: workbench record --kernel vmlinuz -o boot.wbt, workbench tui boot.wbt"),
)  # fmt: skip


def lines(step: int, width: int) -> list[Line]:
    """The panel of a step."""
    head = f"─ tour {step + 1}/{len(STEPS)} ─ t: next step, T: the one before, Esc: end "
    out: list[Line] = [[("class:mark", clip(head.ljust(width, "─"), width))]]
    for style, text in zip(("class:heading", "class:text"), STEPS[step], strict=True):
        out += [[(style, f" {part}")] for part in wrap(text, max(width - 2, 1))]
    return [*out, [("class:mark", "─" * width)]]
