"""Chips, one per file, and the boards made of them."""
