"""The one error of this package."""


class GuestError(Exception):
    """A guest cannot be made on this machine; the message says why, in a sentence."""
