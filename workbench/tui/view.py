"""All of the screen but the terminal: sessions, panes, layout, focus, what is asked for.

The application only shows it and hands keys on; tests drive it without a terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench.errors import WorkbenchError
from workbench.tui import layout as layouts
from workbench.tui.comparison import Comparison
from workbench.tui.layout import LAYOUTS, Rect, Settings, Tree
from workbench.tui.panes.base import Pane
from workbench.tui.panes.code import CodePane
from workbench.tui.panes.compare import ComparePane, StatesPane
from workbench.tui.panes.console import ConsolePane
from workbench.tui.panes.inspector import InspectorPane
from workbench.tui.panes.log import LogPane
from workbench.tui.panes.memory import MemoryPane
from workbench.tui.panes.registers import RegistersPane
from workbench.tui.panes.stack import StackPane
from workbench.tui.panes.time import TimePane
from workbench.tui.structures import STRUCTURES
from workbench.tui.tour import STEPS

if TYPE_CHECKING:
    from workbench.inspect.subject import Bytes
    from workbench.tui.session import Session

PANES: Final[tuple[type[Pane], ...]] = (
    LogPane, TimePane, CodePane, RegistersPane, MemoryPane, StackPane, ConsolePane,
    InspectorPane,
)  # fmt: skip
NAMES: Final = frozenset({*(kind.name for kind in PANES), ComparePane.name, StatesPane.name})
_GROW: Final = 1.25


class View:
    """What the user sees and where the keys go."""

    def __init__(
        self,
        session: Session,
        settings: Settings,
        path: Path | None = None,
        second: Session | None = None,
    ) -> None:
        self.session: Session = session
        self.panes: dict[str, Pane] = {kind.name: kind(session) for kind in PANES}
        self.comparison: Comparison | None = None if second is None else Comparison(session, second)
        if self.comparison is not None:
            for pair in (ComparePane, StatesPane):
                self.panes[pair.name] = pair(session, self.comparison)
        self.layouts: dict[str, Tree] = dict(settings.layouts)
        self.theme = settings.theme
        live = session.live is not None
        self.layout = "5" if live else "7" if second is not None else settings.layout
        self.focus = layouts.panes(self.tree)[0]
        self.zoomed = False
        self.overlay = ""
        """Text over the panes: "help" or none."""
        self.overlay_top = 0
        self.tour: int | None = None
        """Step of the tour, None without it."""
        self.asking = ""
        """What the line at the bottom is for: ":", "/" or none."""
        self.initial = ""
        """What stands in the line when it is opened."""
        self._typing = False
        self.rects: dict[str, Rect] = {}
        self.quitting = False
        self.copied: Callable[[str], None] = lambda text: None
        """Called with a text for the user's clipboard."""
        self.suspend: Callable[[], None] = lambda: None
        """Gives the terminal back to the shell until `fg`."""
        self._path = path
        inspector = self.panes["inspector"]
        assert isinstance(inspector, InspectorPane)
        inspector.look_at = self.look_at
        self._focus_log()

    # Layout.

    @property
    def tree(self) -> Tree:
        """How the screen is divided."""
        tree = self.layouts.get(self.layout, LAYOUTS[self.layout][1])
        return layouts.only(tree, self.panes) or "log"

    def _focus_log(self) -> None:
        names = layouts.panes(self.tree)
        for name in ("compare", "log", names[0]):
            if name in names and name in self.panes:
                self.focus = name
                return

    def choose_layout(self, key: str) -> None:
        """Switch to another layout."""
        if key == "7" and self.comparison is None:
            self.session.say("comparing needs two traces: workbench tui good.wbt bad.wbt")
            return
        self.layout, self.zoomed = key, False
        if self.focus not in layouts.panes(self.tree):
            self._focus_log()
        self.session.say(f"layout {key}: {LAYOUTS[key][0]}")

    def focus_next(self, count: int) -> None:
        """Give the keys to another pane."""
        names = [name for name in layouts.panes(self.tree) if name in self.panes]
        place = names.index(self.focus) if self.focus in names else 0
        self.focus = names[(place + count) % len(names)]

    def resize(self, larger: bool, way: str) -> None:
        """Give the focused pane more room, or less."""
        factor = _GROW if larger else 1 / _GROW
        self.layouts[self.layout] = layouts.resize(self.tree, self.focus, factor, way)

    def show(self, name: str) -> None:
        """Bring a pane to where the focus is, or give it the focus."""
        if name not in self.panes:
            self.session.fail(f"expected one of {', '.join(self.panes)}, not {name!r}")
            return
        if name not in layouts.panes(self.tree):
            self.layouts[self.layout] = layouts.replace(self.tree, self.focus, name)
        self.focus = name

    def look_at(self, place: Bytes) -> None:
        """Show bytes of guest memory, beside the inspector if there is room for both."""
        memory = self.panes["memory"]
        assert isinstance(memory, MemoryPane)
        memory.structure = STRUCTURES.get(place.structure)
        memory.go(place.gpa, physical=True)
        if "memory" not in layouts.panes(self.tree):
            self.choose_layout("3")
        self.show("memory")

    def save(self) -> None:
        """Keep layout and theme for the next time."""
        if self._path is None:
            return
        try:
            layouts.save(self._path, Settings(self.layouts, self.layout, self.theme))
        except WorkbenchError as error:
            self.session.fail(str(error))
        else:
            self.session.say(f"layouts saved in {self._path}")

    def reset_layout(self) -> None:
        """The layout as it came."""
        self.layouts.pop(self.layout, None)
        self._focus_log()

    # Keys and mouse.

    @property
    def pane(self) -> Pane:
        """The pane that has the keys."""
        return self.panes[self.focus]

    def ask(self, kind: str, text: str = "") -> None:
        """Open the line at the bottom."""
        self.asking, self.initial = kind, text

    def move(self, count: int) -> None:
        """Cursor keys."""
        if self.overlay:
            self.overlay_top = max(self.overlay_top + count, 0)
        else:
            self.pane.move(count)

    def page(self, count: int) -> None:
        """Page keys."""
        if self.overlay:
            self.overlay_top = max(self.overlay_top + 10 * count, 0)
        else:
            self.pane.move(count * max(self.pane.height - 1, 1))

    def click(self, x: int, y: int) -> None:
        """The mouse was pressed."""
        if self.overlay:
            self.overlay = ""
            return
        for name, rect in self.rects.items():
            if rect.has(x, y):
                self.focus = name
                if y > rect.y:
                    self.panes[name].click(x - rect.x, y - rect.y - 1)

    def wheel(self, x: int, y: int, count: int) -> None:
        """The mouse wheel was turned."""
        if self.overlay:
            self.move(count)
            return
        for name, rect in self.rects.items():
            if rect.has(x, y):
                self.panes[name].move(count)

    @property
    def typing(self) -> bool:
        """Do the keys go to the guest?  Not to one that has come to its end."""
        live = self.session.live
        return self._typing and live is not None and not live.over

    def stop_typing(self) -> None:
        """The keys are the screen's again."""
        self._typing = False

    def start_typing(self) -> None:
        """Let the keys go to the guest that is being recorded."""
        live = self.session.live
        if live is None or live.over:
            self.session.say(
                "typing needs a recording that goes on: workbench tui --record makes one"
            )
            return
        self._typing = True
        if "console" not in layouts.panes(self.tree):
            self.choose_layout("5")
        self.focus = "console"

    def type(self, text: str) -> None:
        """Hand keys to the guest."""
        live = self.session.live
        if live is not None:
            live.type(text.encode("utf-8", "surrogateescape"))

    def cancel(self) -> None:
        """Escape: close what is open, stop what runs, forget the filter."""
        session = self.session
        if self.asking:
            self.asking = ""
        elif self.overlay:
            self.overlay = ""
        elif session.machine_jobs.busy and session.timeline is not None:
            session.stay()
        elif self.comparison is not None and self.comparison.cancel():
            session.say("stopped")
        elif session.filter_text:
            session.set_filter("")
            session.say("all accesses are shown")
        elif self.tour is not None:
            self.tour = None
        elif self.zoomed:
            self.zoomed = False
        else:
            session.say("")

    def next_inspector(self, count: int) -> None:
        """Show another inspector; the pane is brought in if it is not on the screen."""
        pane = self.panes["inspector"]
        if "inspector" not in layouts.panes(self.tree):
            self.choose_layout("3")
        else:
            pane.sideways(count)

    def inspectors(self) -> list[str]:
        """Names of what can be inspected."""
        pane = self.panes["inspector"]
        assert isinstance(pane, InspectorPane)
        return pane.names()

    def next_tour(self, count: int) -> None:
        """Begin the tour, or go on in it; behind its last step it ends."""
        step = 0 if self.tour is None else self.tour + count
        self.tour = step if 0 <= step < len(STEPS) else None

    def compare(self, what: Callable[[Comparison], None]) -> None:
        """Do something with the comparison, if there is one."""
        if self.comparison is None:
            self.session.say("comparing needs two traces: workbench tui good.wbt bad.wbt")
        else:
            what(self.comparison)

    def copy_address(self) -> None:
        """Give the position to the clipboard, and show it."""
        text = self.session.address()
        self.copied(text)
        self.session.say(f"{text}   (copied, if the terminal allows it)")
