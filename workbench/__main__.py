"""`python -m workbench`, and the command `workbench`.

Ctrl-C ends it in one line also while modules are imported and while the interpreter ends.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` makes enumerations first
import os
import sys

from workbench.errors import EXIT_INTERRUPTED


def _end(*_: object) -> None:
    os.write(2, b"workbench: interrupted\n")
    os._exit(EXIT_INTERRUPTED)


def main() -> int:
    """Run the command line; returns the exit status."""
    _open_streams()
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not with nohup
    if heeded:
        signal.signal(signal.SIGINT, _end)
    from workbench.cli.main import main as run

    try:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        if heeded:
            signal.signal(signal.SIGINT, _end)


def _open_streams() -> None:
    """Open what was closed (`>&-`), which else would be the number of the next file opened."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
