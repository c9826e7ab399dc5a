"""Numbers that transports and devices share (Virtual I/O Device 1.2, chapters 2 and 6)."""

from __future__ import annotations

from typing import Final

# Device status (2.1)
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128

# Features that are not a device's own, as masks (chapter 6)
F_NOTIFY_ON_EMPTY: Final = 1 << 24
F_ANY_LAYOUT: Final = 1 << 27
F_INDIRECT_DESC: Final = 1 << 28
F_EVENT_IDX: Final = 1 << 29
F_VERSION_1: Final = 1 << 32
F_RING_PACKED: Final = 1 << 34
F_IN_ORDER: Final = 1 << 35
F_NOTIFICATION_DATA: Final = 1 << 38
F_RING_RESET: Final = 1 << 40
LEGACY_FEATURES: Final = (1 << 32) - 1

# Device types (chapter 5)
NET, BLOCK, CONSOLE, ENTROPY = 1, 2, 3, 4

NO_VECTOR: Final = 0xFFFF
MOST_QUEUE_SIZE: Final = 1024
"""Largest queue that a device of ours may have, and longest indirect table."""
