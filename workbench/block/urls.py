"""URLs of images, as block nodes of QEMU's storage daemon (its QAPI schema, BlockdevOptions)."""

from __future__ import annotations

import os
import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

from workbench.errors import UsageError

_QEMU_ONLY = (
    "fat",
    "rbd",
    "blkdebug",
    "blkverify",
    "blkreplay",
    "host_device",
    "host_cdrom",
    "null-aio",
    "null-co",
    "nvme",
    "vvfat",
)
"""Protocols that QEMU knows by a name and a colon."""
Node = dict[str, object]
WEB = ("http", "https", "ftp", "ftps")
SCHEMES = (*WEB, "ssh", "sftp", "iscsi", "gluster", "gluster+tcp", "gluster+unix", "nfs")


def scheme_of(spec: str) -> str:
    """The scheme of a URL, "" for a file name. `sheepdog:` names need no slashes."""
    head, colon, rest = spec.partition(":")
    if colon and (rest.startswith("//") or head in ("sheepdog", "json")):
        return head.lower()
    return ""


def without_qemu_prefix(name: str) -> str:
    """The name of a file, or an NBD URI, for what QEMU writes as `file:NAME`,
    `nbd:HOST:PORT[:exportname=E]` or `nbd:unix:PATH[:exportname=E]`. Raises UsageError for other
    prefixes of QEMU's. A name that there is says itself.
    """
    head, colon, rest = name.partition(":")
    if not colon or head not in ("file", "nbd", *_QEMU_ONLY) or os.path.lexists(name):
        return name
    if head == "file":
        return rest
    if rest.startswith("//"):
        return name  # a URL
    if head != "nbd":
        raise UsageError(f"QEMU's {head}: is not supported; expected a file or a URL, not {name!r}")
    place, _, export = rest.partition(":exportname=")
    if place.startswith("unix:"):
        return f"nbd+unix:///{quote(export)}?socket={quote(place.removeprefix('unix:'))}"
    return f"nbd://{place}/{quote(export)}"


def node_of(url: str) -> Node:
    """The block node of a URL. Raises UsageError."""
    scheme = scheme_of(url)
    if scheme.startswith("sheepdog"):
        raise UsageError(
            "sheepdog images cannot be opened: QEMU dropped the sheepdog driver in version 6.0"
        )
    if scheme == "json":
        raise UsageError("expected a file name or a URL, not a json: description")
    if scheme not in SCHEMES:
        raise UsageError(f"expected a known kind of URL ({', '.join(SCHEMES)}), not {scheme!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"expected a URL, not {url!r}: {error}") from None
    if scheme in WEB:
        return {"driver": scheme, "url": url}
    if parts.query and scheme not in ("ssh", "sftp", "gluster+unix"):
        raise UsageError(f"expected a {scheme} URL without options, not {url!r}")
    if parts.password is not None:
        raise UsageError(f"a password in a {scheme} URL is not supported (others could read it)")
    host = parts.hostname or ""
    if not host and scheme != "gluster+unix":
        raise UsageError(f"expected the name of a host in {url!r}")
    path = unquote(parts.path)
    match scheme:
        case "ssh" | "sftp":
            node: Node = {"driver": "ssh", "path": path,
                          "server": {"host": host, "port": str(port or 22)}}  # fmt: skip
            if parts.username:
                node["user"] = unquote(parts.username)
            if parts.query:
                node["host-key-check"] = _host_key_check(parts.query)
            return node
        case "nfs":
            return {"driver": "nfs", "path": path, "server": {"type": "inet", "host": host}}
        case "iscsi":
            return _iscsi(url, parts, host, port or 3260)
        case _:
            return _gluster(url, parts, host, port or 24007)


def _host_key_check(query: str) -> Node:
    """QEMU's option of ssh URLs: `no`, `yes` (known_hosts, as without it), or a hash of the key."""
    name, _, value = query.partition("=")
    kind, _, digits = value.partition(":")
    if name == "host_key_check":
        if value in ("no", "yes"):
            return {"mode": "none" if value == "no" else "known_hosts"}
        if kind in ("md5", "sha1", "sha256") and re.fullmatch("[0-9a-fA-F:]+", digits):
            return {"mode": "hash", "type": kind, "hash": digits}
    raise UsageError(
        "expected host_key_check=no, yes, md5:HASH, sha1:HASH or sha256:HASH as the option of a "
        f"ssh URL, not {query!r}"
    )


def _iscsi(url: str, parts: SplitResult, host: str, port: int) -> Node:
    target, _, lun = parts.path.removeprefix("/").partition("/")
    if not target or not lun.isdecimal() or parts.username:
        raise UsageError(f"expected iscsi://host:port/target/lun, not {url!r}")
    portal = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return {"driver": "iscsi", "transport": "tcp", "portal": portal, "target": unquote(target),
            "lun": int(lun)}  # fmt: skip


def _gluster(url: str, parts: SplitResult, host: str, port: int) -> Node:
    volume, _, path = unquote(parts.path).removeprefix("/").partition("/")
    if not volume or not path:
        raise UsageError(f"expected gluster://host:port/volume/path, not {url!r}")
    server: Node = {"type": "inet", "host": host, "port": str(port)}
    if parts.scheme == "gluster+unix":
        key, _, socket = parts.query.partition("=")
        if key != "socket" or not socket:
            raise UsageError(f"expected gluster+unix:///volume/path?socket=path, not {url!r}")
        server = {"type": "unix", "path": unquote(socket)}
    return {"driver": "gluster", "volume": volume, "path": path, "server": [server]}
