"""The network `user`: a NAT made of ordinary sockets by libslirp; needs no privileges.

The guest is 10.0.2.15 (DHCP gives it), the gateway and the host's loopback interface 10.0.2.2, the
name server 10.0.2.3. Forwards let connections to a port of the host into the guest.
Why libslirp and not passt: docs/decisions/0010-user-network-is-libslirp.md.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import re
import select
import time
from dataclasses import dataclass
from typing import Any, Final

from workbench.errors import UsageError, WorkbenchError
from workbench.net import slirp
from workbench.net.coalesce import coalesce
from workbench.net.port import Large
from workbench.net.slirp import Callbacks, Config, In6Addr, InAddr
from workbench.net.thread import HostThread

__all__ = ["GUEST", "HOST", "NAMESERVER", "Forward", "UserBackend"]

NETWORK: Final = "10.0.2.0"
HOST: Final = "10.0.2.2"
NAMESERVER: Final = "10.0.2.3"
GUEST: Final = "10.0.2.15"
LONGEST_WAIT_MS: Final = 1000
IPV4: Final = b"\x08\0"

_POLL = (
    (slirp.POLL_IN, select.POLLIN),
    (slirp.POLL_OUT, select.POLLOUT),
    (slirp.POLL_PRI, select.POLLPRI),
    (slirp.POLL_ERR, select.POLLERR),
    (slirp.POLL_HUP, select.POLLHUP),
)
_FORWARD = re.compile(r"(?:(tcp|udp):)?([\d.]*):(\d{1,5})-([\d.]*):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Forward:
    """Connections to a port of the host go to a port of the guest."""

    host_port: int
    guest_port: int
    udp: bool = False
    host_address: str = "127.0.0.1"
    guest_address: str = GUEST

    @classmethod
    def parse(cls, text: str) -> Forward:
        """`[tcp|udp]:[HOST]:PORT-[GUEST]:PORT`, QEMU's notation. An empty host is the loopback
        interface: to open a port to others, name the address.
        """
        match = _FORWARD.fullmatch(text.removeprefix(":") if text.startswith("::") else text)
        try:
            if match is None:
                raise ValueError
            kind, host, host_port, guest, guest_port = match.groups()
            made = cls(
                int(host_port),
                int(guest_port),
                kind == "udp",
                str(ipaddress.IPv4Address(host or "127.0.0.1")),
                str(ipaddress.IPv4Address(guest or GUEST)),
            )
        except ValueError:
            raise UsageError(
                f"expected a forward like tcp:127.0.0.1:8080-:80, not {text!r}"
            ) from None
        if not (0 < made.host_port < 65536 and 0 < made.guest_port < 65536):
            raise UsageError(f"expected ports from 1 to 65535, not {text!r}")
        return made


@dataclass(slots=True)
class _Timer:
    callback: Any
    opaque: int | None
    due_ms: int | None = None


class UserBackend(HostThread):
    """One NAT. libslirp is called by the constructor, the thread and, at the end, `close` only."""

    def __init__(
        self,
        forwards: tuple[Forward, ...] = (),
        *,
        restrict: bool = False,
        tftp: str = "",
        bootfile: str = "",
    ) -> None:
        """`restrict`: the guest reaches nothing but DHCP, the gateway and what is forwarded.

        The gateway serves the folder `tftp` by TFTP; DHCP says that `bootfile` is to be booted.
        """
        super().__init__("user")
        self._lib = slirp.load()
        self._timers: dict[int, _Timer] = {}
        self._fds: list[int] = []
        self._events: dict[int, int] = {}
        self._arrived: list[bytes] = []
        self._callbacks = self._make_callbacks()
        self._add_poll = slirp.AddPoll(self._on_add_poll)
        self._get_events = slirp.GetEvents(self._on_get_events)
        self._poll: select.poll | None = None
        config = Config(
            version=slirp.CONFIG_VERSION,
            restricted=int(restrict),
            in_enabled=True,
            vnetwork=InAddr.of(NETWORK),
            vnetmask=InAddr.of("255.255.255.0"),
            vhost=InAddr.of(HOST),
            in6_enabled=True,
            vprefix_addr6=In6Addr.of("fec0::"),
            vprefix_len=64,
            vhost6=In6Addr.of("fec0::2"),
            tftp_path=os.fsencode(os.path.realpath(tftp)) if tftp else None,
            bootfile=os.fsencode(bootfile) if bootfile else None,
            vdhcp_start=InAddr.of(GUEST),
            vnameserver=InAddr.of(NAMESERVER),
            vnameserver6=In6Addr.of("fec0::3"),
        )
        self._slirp = self._lib.slirp_new(ctypes.byref(config), ctypes.byref(self._callbacks), None)
        if not self._slirp:
            raise WorkbenchError("libslirp cannot make a network.")
        for forward in forwards:
            self._forward(forward)

    def _forward(self, f: Forward) -> None:
        failed = self._lib.slirp_add_hostfwd(
            self._slirp,
            int(f.udp),
            InAddr.of(f.host_address),
            f.host_port,
            InAddr.of(f.guest_address),
            f.guest_port,
        )
        if failed:
            why = (
                os.strerror(ctypes.get_errno()).lower()
                if ctypes.get_errno()
                else "it may be in use"
            )
            self.close()
            raise WorkbenchError(f"Cannot forward port {f.host_port} of {f.host_address}: {why}.")

    # -- the thread ------------------------------------------------------------------------------

    def interest(self, poll: select.poll) -> int | None:
        timeout = ctypes.c_uint32(LONGEST_WAIT_MS)
        self._fds.clear()
        self._poll = poll
        self._lib.slirp_pollfds_fill(self._slirp, ctypes.byref(timeout), self._add_poll, None)
        self._poll = None
        wait_ms: int = timeout.value
        now_ms = _now_ns() // 1_000_000
        for timer in self._timers.values():
            if timer.due_ms is not None:
                wait_ms = min(wait_ms, max(timer.due_ms - now_ms, 0))
        return wait_ms

    def work(self, events: dict[int, int]) -> None:
        while self.outgoing:
            frame = self.outgoing.popleft()
            self._lib.slirp_input(self._slirp, frame, len(frame))
        self._events = events
        self._lib.slirp_pollfds_poll(self._slirp, 0, self._get_events, None)
        now_ms = _now_ns() // 1_000_000
        for timer in list(self._timers.values()):
            if timer.due_ms is not None and timer.due_ms <= now_ms:
                timer.due_ms = None
                timer.callback(timer.opaque)
        arrived, self._arrived = self._arrived, []
        if arrived:
            self._receive(coalesce(arrived) if self.large_frames else arrived)

    def send_large(self, large: Large) -> None:
        """Segments of IPv4 go into libslirp in one frame, which it acknowledges at once. Of IPv6 it
        takes no packet longer than its MTU.
        """
        whole = large.whole()
        if whole[12:14] == IPV4:
            self.send(whole)
        else:
            super().send_large(large)

    def shut(self) -> None:
        if self._slirp:
            self._lib.slirp_cleanup(self._slirp)
            self._slirp = None

    # -- what libslirp calls ---------------------------------------------------------------------

    def _make_callbacks(self) -> Callbacks:
        return Callbacks(
            slirp.SendPacket(self._on_packet),
            slirp.GuestError(lambda message, opaque: None),
            slirp.ClockGetNs(lambda opaque: _now_ns()),
            slirp.TimerNew(self._on_timer_new),
            slirp.TimerFree(self._on_timer_free),
            slirp.TimerMod(self._on_timer_mod),
            slirp.RegisterFd(lambda fd, opaque: None),
            slirp.RegisterFd(lambda fd, opaque: None),
            slirp.Notify(lambda opaque: None),  # always in the thread itself
        )

    def _on_packet(self, data: int, length: int, opaque: int) -> int:
        self._arrived.append(ctypes.string_at(data, length))
        return length

    def _on_timer_new(self, callback: Any, opaque: int | None, own: int | None) -> int:
        key = len(self._timers) + 1
        while key in self._timers:
            key += 1
        # ctypes' own object for the callback is valid during this call only
        function = slirp.TimerCb(ctypes.cast(callback, ctypes.c_void_p).value or 0)
        self._timers[key] = _Timer(function, opaque)
        return key

    def _on_timer_free(self, key: int, opaque: int) -> None:
        self._timers.pop(key, None)

    def _on_timer_mod(self, key: int, due_ms: int, opaque: int) -> None:
        if key in self._timers:
            self._timers[key].due_ms = due_ms

    def _on_add_poll(self, fd: int, events: int, opaque: int) -> int:
        assert self._poll is not None
        self._poll.register(fd, sum(host for own, host in _POLL if events & own))
        self._fds.append(fd)
        return len(self._fds) - 1

    def _on_get_events(self, index: int, opaque: int) -> int:
        got = self._events.get(self._fds[index], 0) if 0 <= index < len(self._fds) else 0
        return sum(own for own, host in _POLL if got & host)


def _now_ns() -> int:
    return time.monotonic_ns()
