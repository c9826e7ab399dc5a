"""Hot loops, compiled as a whole beside the guest (see hot.py, text.py)."""
