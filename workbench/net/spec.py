"""Networks by name, as users write them: `none`, `user,hostfwd=tcp::80-:80`, `pcap,file=x`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workbench.errors import UsageError
from workbench.net.pcap import PcapBackend, PcapTee
from workbench.net.port import Backend
from workbench.net.sockets import Address, DgramBackend, StreamBackend
from workbench.net.tap import TapBackend
from workbench.net.user import Forward, UserBackend

__all__ = ["KINDS", "open_backend"]

Options = dict[str, list[str]]


def open_backend(spec: str) -> Backend | None:
    """Open the network `KIND[,OPTION=VALUE...]`; None for `none`. Raises WorkbenchError.

    Any kind takes `dump=FILE`, a capture of all that passes.
    """
    kind, *pairs = spec.split(",")
    if kind not in KINDS:
        raise UsageError(f"expected a network of {', '.join(KINDS)}, not {kind!r}")
    options: Options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not value:
            raise UsageError(f"expected OPTION=VALUE after {kind!r}, not {pair!r}")
        options.setdefault(key, []).append(value)
    dump = _take(options, "dump")
    known, make = KINDS[kind]
    for key in options:
        if key not in known:
            raise UsageError(
                f"expected an option of {', '.join((*known, 'dump'))} for {kind!r}, not {key!r}"
            )
    backend = make(options)
    return PcapTee(backend, Path(dump)) if dump and backend is not None else backend


def _take(options: Options, key: str, default: str = "") -> str:
    values = options.pop(key, [default])
    if len(values) > 1:
        raise UsageError(f"expected one {key!r}, not {len(values)}")
    return values[0]


def _user(options: Options) -> Backend:
    restrict = _take(options, "restrict", "off")
    if restrict not in ("on", "off"):
        raise UsageError(f"expected restrict=on or restrict=off, not {restrict!r}")
    forwards = tuple(Forward.parse(text) for text in options.get("hostfwd", []))
    tftp, bootfile = _take(options, "tftp"), _take(options, "bootfile")
    if tftp and not Path(tftp).is_dir():
        raise UsageError(f"expected tftp= with a folder to serve, not {tftp!r}")
    if bootfile and not tftp:
        raise UsageError("expected bootfile= together with tftp=")
    return UserBackend(forwards, restrict=restrict == "on", tftp=tftp, bootfile=bootfile)


def _stream(options: Options) -> Backend:
    listen, connect = _take(options, "listen"), _take(options, "connect")
    if bool(listen) is bool(connect):
        raise UsageError("expected either listen=ADDRESS or connect=ADDRESS for 'stream'")
    return StreamBackend(Address.parse(listen or connect), listen=bool(listen))


def _dgram(options: Options) -> Backend:
    local, remote = _take(options, "local"), _take(options, "remote")
    if not remote:
        raise UsageError("expected remote=ADDRESS for 'dgram'")
    return DgramBackend(Address.parse(local) if local else None, Address.parse(remote))


def _tap(options: Options) -> Backend:
    return TapBackend(_take(options, "ifname"))


def _pcap(options: Options) -> Backend:
    file, speed = _take(options, "file"), _take(options, "speed", "1")
    if not file:
        raise UsageError("expected file=FILE for 'pcap'")
    try:
        factor = float(speed)
        if not 0 <= factor <= 1e9:
            raise ValueError
    except ValueError:
        raise UsageError(f"expected speed=NUMBER (0: all at once), not {speed!r}") from None
    return PcapBackend(Path(file), factor)


KINDS: dict[str, tuple[tuple[str, ...], Callable[[Options], Backend | None]]] = {
    "none": ((), lambda options: None),
    "user": (("hostfwd", "restrict", "tftp", "bootfile"), _user),
    "stream": (("listen", "connect"), _stream),
    "dgram": (("local", "remote"), _dgram),
    "tap": (("ifname",), _tap),
    "pcap": (("file", "speed"), _pcap),
}
