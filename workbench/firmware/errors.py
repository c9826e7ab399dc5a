"""The errors of the loaders."""


class LoaderError(Exception):
    """A guest image cannot be booted; the message is one sentence for the user."""
