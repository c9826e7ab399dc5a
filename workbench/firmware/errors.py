"""The errors of the loaders."""

from workbench.errors import GuestError


class LoaderError(GuestError):
    """A guest image cannot be booted; the message is one sentence for the user."""
