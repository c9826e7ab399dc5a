"""Workbench: an x86-64 PC whose every device register access is recorded and replayed."""

__version__ = "0.1.0"
