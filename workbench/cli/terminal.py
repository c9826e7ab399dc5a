"""The guest's console on the user's terminal: raw mode, the escape key, signals; always restored.

Ctrl-C keeps its meaning and ends the run; every other key goes to the guest. Ctrl-A is the escape
key, as in QEMU: Ctrl-A X ends the run, Ctrl-A C sends Ctrl-C to the guest, Ctrl-A Ctrl-A a Ctrl-A;
others act on the machine.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from workbench.errors import InputFileError, os_error_text

ESCAPE = 0x01
HELP = (
    b"\r\nCtrl-A X: end the run   Ctrl-A C: Ctrl-C for the guest   Ctrl-A Ctrl-A: Ctrl-A\r\n"
    b"Ctrl-A E: eject the CD   Ctrl-A I: insert the next   Ctrl-A L: network cable out, in   "
    b"Ctrl-A P: power button\r\n"
)
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 5.0
_NUMBERS = frozenset(bytes([number]) for number in ENDING_SIGNALS)
_STDIN = 0
_STDOUT = 1


class EscapeFilter:
    """Takes the escape sequences out of what the user types."""

    def __init__(
        self,
        quit_run: Callable[[], None],
        tell: Callable[[bytes], None],
        act: Callable[[str], bool] = lambda key: False,
    ) -> None:
        """`act` is given the other keys, as small letters; False: there is no such key."""
        self._quit = quit_run
        self._tell = tell
        self._act = act
        self._escaped = False

    def feed(self, data: bytes) -> bytes:
        """Give the bytes that are for the guest."""
        out = bytearray()
        for byte in data:
            if not self._escaped:
                self._escaped = byte == ESCAPE
                if not self._escaped:
                    out.append(byte)
                continue
            self._escaped = False
            match chr(byte).lower():
                case "x":
                    self._quit()
                case "c":
                    out.append(0x03)
                case "\x01" | "a":
                    out.append(ESCAPE)
                case key:
                    if not self._act(key):
                        self._tell(HELP)
        return bytes(out)


@contextlib.contextmanager
def raw_terminal(fd: int = _STDIN) -> Iterator[bool]:
    """Put a terminal into raw mode, Ctrl-C apart, and restore it; gives False if it is none."""
    if not os.isatty(fd):
        yield False
        return
    import termios

    restore = keep_mode(fd)
    mode = termios.tcgetattr(fd)
    mode[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON | termios.ISTRIP)
    mode[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
    for key in (termios.VSUSP, termios.VQUIT):
        mode[6][key] = b"\0"
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    try:
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        yield True
    finally:
        restore()


@contextlib.contextmanager
def ending_signals(
    quit_run: Callable[[], None], stopped: threading.Event, last_resort: Callable[[], None]
) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the run cleanly; a second SIGINT ends it at once.

    Python runs signal handlers between its own instructions only. Should the guest's machine code
    not come back for `GRACE_SECONDS` (`stopped` is not set), a thread calls `last_resort`.
    """
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen = True
        quit_run()

    def watch() -> None:
        if os.read(wake_read, 1) not in _NUMBERS:
            return
        quit_run()
        if not stopped.wait(GRACE_SECONDS):
            last_resort()

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    saved_fd = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    saved = {number: signal.signal(number, handle) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        stopped.set()
        for number, handler in saved.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(saved_fd)
        os.write(wake_write, b"\0")
        watcher.join()
        os.close(wake_read)
        os.close(wake_write)


def keep_mode(fd: int = _STDIN) -> Callable[[], None]:
    """Give a function that brings a terminal back to the mode it has now."""
    if not os.isatty(fd):
        return lambda: None
    import termios

    saved = termios.tcgetattr(fd)
    return lambda: termios.tcsetattr(fd, termios.TCSANOW, saved)


class InputThread:
    """Reads stdin and posts it to the guest until it ends or the run does."""

    def __init__(self, post: Callable[[bytes], None], fd: int = _STDIN) -> None:
        self._post = post
        self._fd = fd
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._work, name="stdin", daemon=True)

    def __enter__(self) -> InputThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._wake_write)
        self._thread.join(1.0)
        os.close(self._wake_read)

    def _work(self) -> None:
        while True:
            try:
                ready, _, _ = select.select([self._fd, self._wake_read], [], [])
                if self._wake_read in ready:
                    return
                data = os.read(self._fd, 4096)
            except OSError:
                return
            if not data:
                return
            self._post(data)


class ConsoleOutput:
    """Writes the output of one console device to a file descriptor, at once."""

    def __init__(self, device: str, fd: int, broken: Callable[[], None]) -> None:
        self._device = device
        self._fd = fd
        self._broken = broken
        self.failure = ""
        self.ends_line = True

    def write(self, data: bytes) -> None:
        """Write bytes; a reader that has gone ends the run."""
        if self.failure:
            return
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self.failure = os_error_text(error)
            self._broken()

    def sink(self, device: str, data: bytes) -> None:
        """Take what the guest prints."""
        if device == self._device and data:
            self.ends_line = data.endswith(b"\n")
            self.write(data)


def open_serial_file(path: str) -> int:
    """Open the file of `--serial file:PATH`."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputFileError(f"the serial file {path}: {os_error_text(error)}") from None
