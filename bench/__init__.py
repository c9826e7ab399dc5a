"""Measurements against QEMU, side by side: ``python -m bench``."""
