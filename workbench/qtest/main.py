"""The program that can be named in QTEST_QEMU_BINARY."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from workbench.errors import EXIT_OK, UsageError, WorkbenchError
from workbench.qtest import options
from workbench.qtest.assembly import assemble
from workbench.qtest.protocol import Protocol
from workbench.qtest.server import Server

__all__ = ["main", "run"]

HELP = """\
usage: workbench-qtest [QEMU's options]

A machine without a running processor, driven over QEMU's qtest protocol:

  workbench-qtest -qtest unix:PATH [-qmp unix:PATH]     connect to a client that listens
  workbench-qtest -qtest unix:PATH,server=on            listen

options that matter (docs/qtest.md tells of each):
  -machine pc|none  -m SIZE  -drive ...  -blockdev ...  -device ...  -netdev ...  -global ...
  -qtest ADDRESS  -qmp ADDRESS  -chardev socket,id=I,path=P -mon chardev=I,mode=control
  -no-reboot  -no-shutdown

QEMU's own tests take the architecture from the name of the program, so for them
  QTEST_QEMU_BINARY=.../bin/workbench-qtest-system-x86_64
"""


def main() -> int:
    """The console script; errors are one line, as QEMU's are."""
    arguments = sys.argv[1:]
    try:
        return run(arguments)
    except WorkbenchError as error:
        print(f"workbench-qtest: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return EXIT_OK


def run(arguments: Sequence[str]) -> int:
    """Serve a machine as a command line of QEMU describes it; raises WorkbenchError."""
    if any(argument in ("-h", "-help", "--help") for argument in arguments):
        print(HELP, end="")
        return EXIT_OK
    wanted = options.parse(arguments)
    if not wanted.qtest and not wanted.qmp:
        raise UsageError("expected -qtest unix:PATH or -qmp unix:PATH (see --help)")
    signal.signal(signal.SIGTERM, _end)
    server: Server | None = None

    def event(name: str, data: dict[str, Any] | None = None) -> None:
        if server is not None:
            server.event(name, data)

    made = assemble(wanted, event, epoch_s=_epoch_s(wanted.rtc))
    try:
        server = Server(Protocol(made.testbed), made.monitor, wanted)
        server.connect()
        server.serve()
    finally:
        made.plug.close()
    return EXIT_OK


def _epoch_s(base: str) -> int:
    """What `-rtc base=` says; now for `utc`."""
    if base == "utc":
        return int(time.time())
    try:
        moment = datetime.fromisoformat(base)
    except ValueError:
        raise UsageError(f"expected -rtc base=utc or a time, not {base!r}") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _end(number: int, frame: object) -> None:
    """SIGTERM is how tests end the program, so it is no failure."""
    raise SystemExit(EXIT_OK)
