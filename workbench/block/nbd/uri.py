"""NBD URIs (doc/uri.md of the NBD project): where the server is, and how to talk to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from workbench.errors import UsageError

DEFAULT_PORT = 10809
SCHEMES = ("nbd", "nbds", "nbd+unix", "nbds+unix")


@dataclass(frozen=True, slots=True)
class Address:
    """A server and its export. `socket` is a Unix socket, else `host` and `port` are used."""

    host: str = ""
    port: int = DEFAULT_PORT
    socket: str = ""
    export: str = ""
    tls: bool = False
    certificates: str = ""  # directory with ca-cert.pem, client-cert.pem, client-key.pem
    verify_peer: bool = True
    tls_hostname: str = ""
    label: str = ""  # how messages call it, if a helper of ours is the server

    @property
    def name(self) -> str:
        """How messages call it."""
        if self.label:
            return self.label
        where = self.socket or f"{self.host}:{self.port}"
        return f"NBD server {where}" + (f" (export {self.export!r})" if self.export else "")


def parse(uri: str) -> Address:
    """An NBD URI. Raises UsageError that says what is wrong with it."""
    try:
        parts = urlsplit(uri)
        port = parts.port if parts.port is not None else DEFAULT_PORT
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise UsageError(f"expected an NBD URI, not {uri!r}: {error}") from None
    if parts.scheme not in SCHEMES:
        raise UsageError(f"expected one of {', '.join(SCHEMES)}, not {parts.scheme!r}")
    unix = parts.scheme.endswith("+unix")
    known = {"socket", "tls-certificates", "tls-verify-peer", "tls-hostname"}
    for key in query.keys() - known:
        raise UsageError(f"{key!r} in {uri!r} is not supported")

    def one(key: str) -> str:
        values = query.get(key, [""])
        if len(values) != 1:
            raise UsageError(f"expected one {key!r} in {uri!r}, not {len(values)}")
        return values[0]

    socket = one("socket")
    if unix != bool(socket) or (unix and parts.netloc):
        raise UsageError(
            f"expected nbd://host:port/export or nbd+unix:///export?socket=path, not {uri!r}"
        )
    if not unix and not parts.hostname:
        raise UsageError(f"expected the name of a host in {uri!r}")
    export = unquote(parts.path.removeprefix("/"))
    if len(export.encode()) > 4096:
        raise UsageError("expected an export name of at most 4096 bytes")
    certificates = one("tls-certificates")
    return Address(
        host=parts.hostname or "",
        port=port,
        socket=socket,
        export=export,
        tls=parts.scheme.startswith("nbds"),
        certificates=str(Path(certificates).expanduser()) if certificates else "",
        verify_peer=one("tls-verify-peer").lower() not in ("0", "false", "no"),
        tls_hostname=one("tls-hostname"),
    )
