"""What goes wrong with disks: a peer, the medium."""

from __future__ import annotations

from workbench.errors import WorkbenchError


class RemoteError(WorkbenchError):
    """A server that we talk to (NBD, or a helper behind it) refuses, is gone, or lies."""


class DiskError(Exception):
    """A sector cannot be read or written; the device reports it as its standard says."""
