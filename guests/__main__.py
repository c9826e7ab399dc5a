"""``python -m guests [flavour ...]``: make the guests and say where they are."""

import argparse
import os
import sys
from pathlib import Path

from guests import debian
from guests.build import FLAVOURS, cache_directory, describe, ensure
from guests.errors import GuestError

EXAMPLES = """examples:
  python -m guests                     the kernels, each with its initramfs images
  python -m guests debian              a whole Debian on a disk image
  python -m guests debian --suite trixie --include stress-ng,gcc --ssh-key ~/.ssh/id_ed25519.pub
"""


def main() -> int:
    """Make the flavours named on the command line, by default all kernels."""
    parser = argparse.ArgumentParser(
        prog="python -m guests",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = f"any of {', '.join(FLAVOURS)}, debian (default: all kernels)"
    parser.add_argument("flavour", nargs="*", help=names)
    parser.add_argument("--rebuild", action="store_true", help="make them anew")
    whole = parser.add_argument_group("a whole Debian")
    whole.add_argument(
        "--suite", default=debian.SUITE, help=f"which release (default: {debian.SUITE})"
    )
    whole.add_argument("--include", metavar="A,B", default="", help="more packages")
    whole.add_argument(
        "--size", metavar="MIB", type=int, default=debian.SIZE_MIB,
        help=f"of the disk (default: {debian.SIZE_MIB})",
    )  # fmt: skip
    whole.add_argument("--ssh-key", metavar="FILE", type=Path, help="public key that opens root")
    whole.add_argument("--mirror", metavar="URL", default="", help="where to fetch from")
    options = parser.parse_args()
    try:
        for flavour in options.flavour or FLAVOURS:
            if flavour == "debian":
                text = debian.describe(whole_debian(options))
            else:
                text = describe(ensure(flavour, rebuild=options.rebuild))
            print(text, flush=True)
    except BrokenPipeError:  # who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (GuestError, OSError) as error:
        print(f"guests: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("guests: interrupted", file=sys.stderr)
        return 130
    return 0


def whole_debian(options: argparse.Namespace) -> debian.Debian:
    """Make the whole Debian of `options`, unless it is there already and nothing else is asked."""
    there = debian.Debian(cache_directory() / f"debian-{options.suite}")
    changed = options.rebuild or options.include or options.ssh_key or options.mirror
    if not changed and options.size == debian.SIZE_MIB and all(p.is_file() for p in there.files):
        return there
    print(f"making Debian {options.suite}; this fetches some 150 MB", file=sys.stderr, flush=True)
    return debian.make(
        there.directory,
        options.suite,
        [name for name in options.include.split(",") if name],
        options.size,
        options.ssh_key,
        options.mirror,
        sys.stderr,
    )


if __name__ == "__main__":
    sys.exit(main())
