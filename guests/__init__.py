"""Guests for tests and benchmarks, made from the distribution's own packages.

Nothing of a kernel or of busybox is kept in this repository. ``python -m guests`` fetches the
kernel packages and ``busybox-static`` with ``apt-get download``, unpacks them without installing
them, and writes the results to a cache directory (see `guests.cache_directory`).
"""

from guests.build import FLAVOURS, Guest, cache_directory, ensure
from guests.errors import GuestError

__all__ = ["FLAVOURS", "Guest", "GuestError", "cache_directory", "ensure"]
