"""The application: shows the view in a terminal and hands keys and mouse on to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    Float,
    FloatContainer,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.layout.screen import Screen
from prompt_toolkit.mouse_events import MouseButton, MouseEvent, MouseEventType
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import DynamicStyle

from workbench.errors import WorkbenchError
from workbench.tui import commands
from workbench.tui.history import Lines, history_path
from workbench.tui.keys import KEYS
from workbench.tui.language import FilterError
from workbench.tui.pace import Garbage, Selector, waiting
from workbench.tui.screen import compose
from workbench.tui.style import choose, depth, style
from workbench.tui.surface import Surface

if TYPE_CHECKING:
    from workbench.tui.lines import Line
    from workbench.tui.pace import Turn
    from workbench.tui.view import View

_GUEST_KEYS: Final = [
    key for key in Keys
    if key not in (Keys.Any, Keys.ScrollUp, Keys.ScrollDown, Keys.CPRResponse,
                   Keys.Vt100MouseEvent, Keys.WindowsMouseEvent, Keys.SIGINT, Keys.Ignore)
]  # fmt: skip
"""Keys with names, whose sequences go to a guest when one types into it."""
_KEY_SECONDS: Final = 0.015
"""How long an escape sequence may take to arrive."""


class _Output(Vt100_Output):
    """The terminal, which takes its time: work beside the screen may go on meanwhile."""

    def flush(self) -> None:
        """Print what has been drawn."""
        with waiting():
            super().flush()


class _Completer(Completer):
    def __init__(self, view: View) -> None:
        self._view = view

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if self._view.asking == "/":
            found = commands.filter_completions(self._view, text)
        else:
            found = commands.completions(self._view, text)
        for word, start, meta in found:
            yield Completion(word, start_position=start, display_meta=meta)


class TuiApp:
    """The running application."""

    def __init__(self, view: View, turn: Turn) -> None:
        self.view = view
        self._turn = turn
        self._histories = {
            ":": Lines(history_path("commands")),
            "/": Lines(history_path("filters")),
        }
        self._buffers = {
            kind: Buffer(
                completer=_Completer(view), complete_while_typing=True, multiline=False,
                history=history, accept_handler=self._accept,
            )
            for kind, history in self._histories.items()
        }  # fmt: skip
        self._main = Surface(self._draw, self._point)
        asking = [
            ConditionalContainer(
                Window(
                    BufferControl(buffer, input_processors=[BeforeInput(kind, "class:key")]),
                    height=1,
                ),
                filter=Condition(lambda kind=kind: view.asking == kind),  # type: ignore[misc]
            )
            for kind, buffer in self._buffers.items()
        ]
        root = FloatContainer(
            HSplit([self._main, *asking]),
            floats=[Float(CompletionsMenu(max_height=8), xcursor=True, ycursor=True)],
        )
        self.app: Application[None] = Application(
            layout=Layout(root, focused_element=self._main),
            key_bindings=self._bindings(),
            style=DynamicStyle(lambda: style(choose(view.theme))),
            color_depth=lambda: ColorDepth.MONOCHROME if choose(view.theme) == "mono" else depth(),
            output=_Output.from_pty(
                sys.stdout, term=os.environ.get("TERM"), default_color_depth=ColorDepth.from_env()
            ),
            full_screen=True,
            mouse_support=True,
            before_render=lambda _: self._sync(),
            after_render=lambda _: self._drawn(),
        )
        self.app.ttimeoutlen = _KEY_SECONDS
        self.app.timeoutlen = _KEY_SECONDS
        self.app.key_processor.before_key_press += lambda _: self._pressed()
        view.session.changed = self.app.invalidate
        if view.comparison is not None:
            view.comparison.second.changed = self.app.invalidate
        view.copied = self._copy
        view.suspend = self.app.suspend_to_background
        self._loop: asyncio.AbstractEventLoop | None = None
        self.interrupted = False
        """Was it a signal that ended it?"""
        self._early: list[Callable[[], None]] = []
        self._start: Callable[[], None] | None = None
        self._garbage: Garbage | None = None
        self._last: Screen | None = None
        self._error: Exception | None = None
        """What `run` ends with."""

    # Keys.

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        free = Condition(lambda: not self.view.asking and not self.view.typing)
        asking = Condition(lambda: bool(self.view.asking))
        typing = Condition(lambda: self.view.typing)

        def add(keys: Iterable[str], run: Callable[[View], None]) -> None:
            @bindings.add(*keys, filter=free, eager=True)
            def _(event: KeyPressEvent) -> None:
                run(self.view)
                self._after_key()

        for key in KEYS:
            for one in key.keys:
                add((one,), key.press)

        @bindings.add("escape", filter=asking, eager=True)
        @bindings.add("c-c", filter=asking, eager=True)
        def _(event: KeyPressEvent) -> None:
            self._close_line()

        for key_name in (*_GUEST_KEYS, Keys.Any):
            # Keys with a meaning of their own would not go to Any.
            @bindings.add(key_name, filter=typing, eager=key_name is not Keys.Any)
            def _(event: KeyPressEvent) -> None:
                if event.key_sequence[0].key == Keys.ControlSquareClose:
                    self.view.stop_typing()
                else:
                    self.view.type("".join(press.data for press in event.key_sequence))

        return bindings

    def _pressed(self) -> None:
        """Work beside the screen waits until this key is answered."""
        self._turn.take()
        self.view.session.aside.key()
        if self._garbage is not None:
            self._garbage.key()

    def _after_key(self) -> None:
        if self.view.asking:
            buffer = self._buffers[self.view.asking]
            buffer.reset(Document(self.view.initial), append_to_history=False)
            self.app.layout.focus(buffer)
        if self.view.quitting:
            self._exit()

    def _accept(self, buffer: Buffer) -> bool:
        kind, text = self.view.asking, buffer.text
        self._close_line()
        try:
            if kind == "/":
                self.view.session.set_filter(text)
            else:
                commands.run(self.view, text)
        except FilterError as error:
            self.view.session.fail(str(error))
        if self.view.quitting:
            self._exit()
        return False

    def _close_line(self) -> None:
        self.view.asking = ""
        self.app.layout.focus(self._main)

    def _sync(self) -> None:
        """The model may have closed the line, or moved one of two traces."""
        self._turn.take()
        if self.view.comparison is not None and self._error is None:
            try:
                self.view.comparison.follow()
            except WorkbenchError as error:
                self._fail(error)
        if not self.view.asking and not self.app.layout.has_focus(self._main):
            self.app.layout.focus(self._main)

    def _draw(self, width: int, height: int) -> list[Line]:
        try:
            return compose(self.view, width, height)
        except Exception as error:
            # The library draws once more when it leaves: raised here, it would not get to that.
            self._fail(error)
            return [[]]

    def _point(self, event: MouseEvent) -> None:
        """The mouse."""
        x, y = event.position.x, event.position.y
        match event.event_type:
            case MouseEventType.MOUSE_DOWN if event.button == MouseButton.LEFT:
                self.view.click(x, y)
            case MouseEventType.SCROLL_UP:
                self.view.wheel(x, y, -3)
            case MouseEventType.SCROLL_DOWN:
                self.view.wheel(x, y, 3)

    def _drawn(self) -> None:
        """What takes long begins when the first screen is there, not before."""
        self._turn.give()
        last, self._last = self._last, self.app.renderer.last_rendered_screen
        if last is not None and last is not self._last:
            last.data_buffer.clear()  # the library's functions for a drawing hold it for long
        start, self._start = self._start, None
        if start is not None:
            # Behind the first rows: they would have to share the interpreter with all the rest.
            self.view.session.aside.ask(_nothing, lambda _: start())

    def _copy(self, text: str) -> None:
        """OSC 52, towards the user's own terminal; `text` is ours, never the guest's."""
        data = base64.b64encode(text.encode()).decode()
        self.app.output.write_raw(f"\x1b]52;c;{data}\x07")
        self.app.output.flush()

    def _exit(self) -> None:
        with contextlib.suppress(Exception):  # it has been told already
            self.app.exit()

    def _fail(self, error: BaseException | None) -> None:
        """A damaged trace or a fault of ours, in a key or in drawing: leave, `run` raises it."""
        if isinstance(error, EOFError | OSError):  # the terminal has gone
            self.interrupted = True
        elif self._error is None and isinstance(error, Exception):
            self._error = error
        self._exit()

    def _signalled(self) -> None:
        """SIGTERM or SIGHUP: leave, and leave the terminal as it was."""
        self.interrupted = True
        self._exit()

    # Running.

    def post(self, call: Callable[[], None]) -> None:
        """Run a function in the screen's thread; from any thread."""
        loop = self._loop
        if loop is None:
            self._early.append(call)
        elif not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it is closed in this moment
                loop.call_soon_threadsafe(call)

    def run(self, start: Callable[[], None]) -> None:
        """Show the screen until the user leaves; `start` is called when it is there."""
        interval = sys.getswitchinterval()
        self._start, self._garbage = start, Garbage()
        try:
            with asyncio.Runner(loop_factory=_loop) as runner:
                runner.run(self._run())
        finally:
            self._garbage.close()
            sys.setswitchinterval(interval)

    async def _run(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)
        loop.set_exception_handler(lambda _, context: self._fail(context.get("exception")))
        ticker = loop.create_task(self._tick())
        for call in self._early:
            loop.call_soon(call)
        try:
            await self.app.run_async(handle_sigint=False, set_exception_handler=False)
        except (EOFError, OSError):  # the terminal has gone
            self.interrupted = True
        finally:
            ticker.cancel()
            for number in (signal.SIGTERM, signal.SIGHUP):
                # It is leaving already; the loop would have it die of another one.
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
        if self._error is not None:
            raise self._error

    async def _tick(self) -> None:
        """Draw while something runs, a few times a second."""
        while True:
            await asyncio.sleep(0.2)
            session = self.view.session
            if session.live is not None and session.live.running:
                session.follow()
            comparison = self.view.comparison
            comparing = comparison is not None and comparison.running
            if session.machine_jobs.busy or session.scanning or comparing:
                self.app.invalidate()
            if self._garbage is not None:
                self._garbage.tick(any(jobs.busy for jobs in session.all_jobs))


def _nothing() -> None:
    """What is to be done only in its turn."""


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(Selector())
