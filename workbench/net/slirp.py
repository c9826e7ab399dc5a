"""libslirp's C interface through ctypes (libslirp.h of version 4.7, configuration version 1).

Only declarations and thin calls; `user` makes a network of them. Configuration version 1 is used
because every libslirp since 4.1 takes it.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import ipaddress
from typing import Any, Final

from workbench.errors import WorkbenchError

__all__ = ["POLL_ERR", "POLL_HUP", "POLL_IN", "POLL_OUT", "POLL_PRI", "Callbacks", "Config", "load"]

POLL_IN, POLL_OUT, POLL_PRI, POLL_ERR, POLL_HUP = 1, 2, 4, 8, 16
CONFIG_VERSION: Final = 1

SendPacket = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
GuestError = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p)
ClockGetNs = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
TimerCb = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
TimerNew = ctypes.CFUNCTYPE(ctypes.c_void_p, TimerCb, ctypes.c_void_p, ctypes.c_void_p)
TimerFree = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
TimerMod = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
RegisterFd = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)
Notify = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
AddPoll = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
GetEvents = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


class InAddr(ctypes.Structure):
    """struct in_addr: the address in network order; aligned like a 32-bit number."""

    _fields_ = (("s_addr", ctypes.c_uint32),)

    @classmethod
    def of(cls, address: str) -> InAddr:
        """From dotted notation."""
        return cls.from_buffer_copy(ipaddress.IPv4Address(address).packed)


class In6Addr(ctypes.Structure):
    """struct in6_addr, likewise."""

    _fields_ = (("s6_addr32", ctypes.c_uint32 * 4),)

    @classmethod
    def of(cls, address: str) -> In6Addr:
        """From text."""
        return cls.from_buffer_copy(ipaddress.IPv6Address(address).packed)


class Config(ctypes.Structure):
    """SlirpConfig, the fields of version 1."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("restricted", ctypes.c_int),
        ("in_enabled", ctypes.c_bool),
        ("vnetwork", InAddr),
        ("vnetmask", InAddr),
        ("vhost", InAddr),
        ("in6_enabled", ctypes.c_bool),
        ("vprefix_addr6", In6Addr),
        ("vprefix_len", ctypes.c_uint8),
        ("vhost6", In6Addr),
        ("vhostname", ctypes.c_char_p),
        ("tftp_server_name", ctypes.c_char_p),
        ("tftp_path", ctypes.c_char_p),
        ("bootfile", ctypes.c_char_p),
        ("vdhcp_start", InAddr),
        ("vnameserver", InAddr),
        ("vnameserver6", In6Addr),
        ("vdnssearch", ctypes.c_void_p),
        ("vdomainname", ctypes.c_char_p),
        ("if_mtu", ctypes.c_size_t),
        ("if_mru", ctypes.c_size_t),
        ("disable_host_loopback", ctypes.c_bool),
        ("enable_emu", ctypes.c_bool),
    )


class Callbacks(ctypes.Structure):
    """SlirpCb, the part that belongs to configuration version 1."""

    _fields_ = (
        ("send_packet", SendPacket),
        ("guest_error", GuestError),
        ("clock_get_ns", ClockGetNs),
        ("timer_new", TimerNew),
        ("timer_free", TimerFree),
        ("timer_mod", TimerMod),
        ("register_poll_fd", RegisterFd),
        ("unregister_poll_fd", RegisterFd),
        ("notify", Notify),
        ("init_completed", ctypes.c_void_p),
        ("timer_new_opaque", ctypes.c_void_p),
    )


@functools.cache
def load() -> Any:
    """The library with its functions declared; an error that says what to install if there is
    none.
    """
    for name in ("libslirp.so.0", ctypes.util.find_library("slirp") or ""):
        try:
            lib = ctypes.CDLL(name, use_errno=True) if name else None
        except OSError:
            continue
        if lib is not None:
            return _declare(lib)
    raise WorkbenchError(
        "The network 'user' needs libslirp, which is not installed (Debian: package libslirp0)."
    )


def _declare(lib: Any) -> Any:
    slirp = ctypes.c_void_p
    for name, result, arguments in (
        ("slirp_new", slirp, (ctypes.POINTER(Config), ctypes.POINTER(Callbacks), slirp)),
        ("slirp_cleanup", None, (slirp,)),
        ("slirp_pollfds_fill", None, (slirp, ctypes.POINTER(ctypes.c_uint32), AddPoll, slirp)),
        ("slirp_pollfds_poll", None, (slirp, ctypes.c_int, GetEvents, slirp)),
        ("slirp_input", None, (slirp, ctypes.c_char_p, ctypes.c_int)),
        (
            "slirp_add_hostfwd",
            ctypes.c_int,
            (slirp, ctypes.c_int, InAddr, ctypes.c_int, InAddr, ctypes.c_int),
        ),
        ("slirp_version_string", ctypes.c_char_p, ()),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib
