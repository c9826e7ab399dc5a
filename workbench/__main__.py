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


if __name__ == "__main__":
    sys.exit(main())
