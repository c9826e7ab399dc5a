"""The `workbench` command on the fake machine; run as a script by the tests of the command line.

FAKE_INSNS and FAKE_STOP in the environment configure it. It prints `$ ` at its start, and whatever
is typed, in capitals.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.trace import fake
from workbench.cli import engine, main, record, terminal
from workbench.trace import guest


class EchoMachine(fake.FakeMachine):
    """Answers to input, and takes its time when `FAKE_SLOW` is set."""

    def __init__(self, config: Mapping[str, Any], guest: guest.Guest) -> None:
        super().__init__(config, guest)
        self._greeted = False

    def run(self, until_icount: int | None = None, until_ps: int | None = None) -> fake.Stop:
        if not self._greeted:
            self._greeted = True
            self._emit("on_console", "com1", b"$ ", self.clock.icount)
        if os.environ.get("FAKE_UNDEFINED"):
            self.undefined[b"\x0f\x04"] = 1234
        if os.environ.get("FAKE_STUCK") and self.clock.icount > 1000:
            # As machine code that never comes back: no Python instruction in the main thread.
            ctypes.CDLL(None).sleep(60)
            ctypes.CDLL(None).sleep(60)
        if os.environ.get("FAKE_SLOW"):
            time.sleep(0.02)
            until = self.clock.icount + 100
            until_icount = until if until_icount is None else min(until_icount, until)
        return super().run(until_icount)

    def _input(self, inp: Any) -> None:
        super()._input(inp)
        self._emit("on_console", "com1", inp.data.upper(), self.clock.icount)
        if b"q" in inp.data:
            self.insns = self.clock.icount + 50


def config(args: argparse.Namespace) -> dict[str, Any]:
    insns = int(os.environ.get("FAKE_INSNS", "20000"))
    stop = os.environ.get("FAKE_STOP", "shutdown")
    return fake.config(insns, stop=stop, code=5, ram_bytes=args.memory)


if __name__ == "__main__":
    guest.build_machine = EchoMachine  # type: ignore[assignment]
    record.machine_config = config
    terminal.GRACE_SECONDS = 0.5
    engine.prepare = lambda: None
    sys.exit(main.main())
