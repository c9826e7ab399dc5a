"""Other processes that do a part of the work, and Ctrl-C, which all processes of a terminal get.

The first process answers it; the others end at once and say nothing, also while they are starting.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Final

__all__ = ["end_at_interrupt", "starting", "step_back"]

_NICE: Final = 5


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Start processes in this: Ctrl-C waits, here and there, until they call `end_at_interrupt`."""
    resource_tracker.ensure_running()  # else it is started with the first one, and lets Ctrl-C in
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def step_back() -> None:
    """Let whatever else there is to do go before this process, and wake up before it."""
    os.nice(_NICE)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def end_at_interrupt() -> None:
    """Let Ctrl-C end this process at once and quietly, unless it was started to ignore it."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
