"""A process that looks after the terminal: whatever ends the application, the terminal is restored.

The application restores the terminal itself on every way out that a process can see. An engine that
crashes, the kernel that needs memory, or `kill -9` leave it no time for that. So it runs in a
child, and the parent does nothing but wait: it hands signals on, and when the child was killed, it
sets the terminal back, says so in one sentence, and ends with a status that is not 0. When the
parent is killed, the kernel ends the child.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import termios
from typing import Any, Final

from workbench.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED

_PR_SET_PDEATHSIG: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_KEYS: Final = (signal.SIGINT, signal.SIGQUIT)
_SI_KERNEL: Final = 0x80
"""Of a signal that a key made (asm-generic/siginfo.h): the child has got it, too."""
_RESET: Final = (
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l"  # no mouse
    "\x1b[?2004l"  # no brackets around what is pasted
    "\x1b[?1l\x1b[?7h"  # cursor keys and wrapping as usual
    "\x1b[0m\x1b[?1049l\x1b[?25h\r"  # no colour, the screen from before, the cursor
)


def stand_by() -> None:
    """Go on in a child; the parent does not come back, it ends with the child's exit status."""
    sys.stdout.flush()
    sys.stderr.flush()
    modes = _modes()
    parent = os.getpid()
    watched = {*_SIGNALS, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        die_with(parent, signal.SIGTERM)
        return
    status = os.waitstatus_to_exitcode(_wait(child, watched))
    if status < 0:
        _restore(modes)
        number = signal.Signals(-status)
        # A signal that was handed on may find a child that is about to end, and takes no more.
        said = "a signal or the loss of the terminal ended it"
        if number not in _SIGNALS:
            said = f"the screen was ended by {number.name}"
        if number != signal.SIGINT:  # Ctrl-C before there is a screen: it has said so itself
            with contextlib.suppress(OSError):
                print(f"workbench: {said}", file=sys.stderr, flush=True)
        status = EXIT_INTERRUPTED if number in _SIGNALS else 128 - status
    # What the interpreter would do at its end is the child's affair.
    os._exit(status)


def _wait(child: int, watched: set[signal.Signals]) -> int:
    """Hand signals on until the child has ended; gives its status."""
    while True:
        info = signal.sigwaitinfo(watched)
        if info.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)  # it may only have been stopped
            if ended:
                return status
        elif info.si_signo not in _KEYS or info.si_code != _SI_KERNEL:
            _hand_on(child, info.si_signo)


def die_with(parent: int, number: int) -> None:
    """Have the kernel send a signal to this process when its parent ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_BAD_INPUT)


def _modes() -> list[Any] | None:
    try:
        return termios.tcgetattr(sys.stdin.fileno())
    except (termios.error, OSError, ValueError):
        return None


def _hand_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _restore(modes: list[Any] | None) -> None:
    with contextlib.suppress(OSError, ValueError, termios.error):
        sys.stdout.write(_RESET)
        sys.stdout.flush()
        if modes is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, modes)
