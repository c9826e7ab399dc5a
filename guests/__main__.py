"""``python -m guests [flavour ...]``: make the guests and say where they are."""

import argparse
import os
import sys

from guests.build import FLAVOURS, describe, ensure
from guests.errors import GuestError


def main() -> int:
    """Make the flavours named on the command line, by default all."""
    parser = argparse.ArgumentParser(prog="python -m guests", description=__doc__)
    parser.add_argument("flavour", nargs="*", help=f"any of {', '.join(FLAVOURS)} (default: all)")
    parser.add_argument("--rebuild", action="store_true", help="make them anew")
    options = parser.parse_args()
    try:
        for flavour in options.flavour or FLAVOURS:
            print(describe(ensure(flavour, rebuild=options.rebuild)), flush=True)
    except BrokenPipeError:  # who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (GuestError, OSError) as error:
        print(f"guests: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
