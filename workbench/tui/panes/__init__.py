"""Panes: each gives lines of styled text for a width and a height, from the session alone."""
