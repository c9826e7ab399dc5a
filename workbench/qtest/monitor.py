"""What the commands of QMP and of the human monitor do to a testbed."""

from __future__ import annotations

import shlex
import struct
from collections.abc import Callable
from typing import Any, Final

from workbench.errors import UsageError
from workbench.hw.virtio.pci import VirtioPci
from workbench.qtest import types
from workbench.qtest.blkdebug import ERROR_TAG
from workbench.qtest.hostports import HotplugPorts
from workbench.qtest.options import Part
from workbench.qtest.plug import Plug
from workbench.qtest.qmp import CommandNotFound, Qmp
from workbench.qtest.testbed import Testbed

__all__ = ["Monitor"]

Arguments = dict[str, Any]
Event = Callable[..., None]
MOST_DISK_BYTES: Final = 1 << 57
RARP: Final = 0x8035
MOST_ROUNDS: Final = 1000


class Monitor:
    """One machine. `event(name, data)` tells all clients; `quit` ends the program."""

    def __init__(self, testbed: Testbed, plug: Plug, event: Event) -> None:
        self.testbed = testbed
        self.plug = plug
        self.quit = False
        self.announcements: dict[str, tuple[float, float, float, int]] = {}
        """By the id of the timer: delay now, step, longest delay (seconds), rounds left."""
        self._event = event
        self._status = "running"
        self._leaving: set[str] = set()
        self.hotplug = HotplugPorts(self._ejected)
        testbed.machine.pio.map(self.hotplug.window())
        plug.on_stop = self._stopped_by_error

    def execute(self, command: str, arguments: Arguments) -> Any:
        """Execute a command; gives what it returns. Raises WorkbenchError."""
        method = _COMMANDS.get(command)
        if method is None:
            raise CommandNotFound(f"The command {command[:80]} has not been found")
        value = method(self, arguments)
        return {} if value is None else value

    # -- running

    def follow(self, reset_ends: bool, shutdown_ends: bool) -> None:
        """See what devices have asked for."""
        stop = self.testbed.take_stop()
        if stop is None:
            return
        if stop.kind == "reset" and not reset_ends:
            self.testbed.reset()
            self._event("RESET", {"guest": True, "reason": "guest-reset"})
            return
        reason = "guest-reset" if stop.kind == "reset" else "guest-shutdown"
        self._event("SHUTDOWN", {"guest": True, "reason": reason})
        if shutdown_ends:
            self.quit = True
        else:
            self._pause("shutdown")

    def _pause(self, status: str) -> None:
        if not self.testbed.stopped:
            self.testbed.stopped = True
            self._event("STOP")
        self._status = status

    def _stopped_by_error(self) -> None:
        self._pause("io-error")

    def _stop(self, arguments: Arguments) -> None:
        self._pause("paused")

    def _continue(self, arguments: Arguments) -> None:
        if self.testbed.stopped:
            self.testbed.stopped = False
            self._status = "running"
            self._event("RESUME")
        self.testbed.release(ERROR_TAG)

    def _query_status(self, arguments: Arguments) -> Any:
        return {
            "status": self._status,
            "singlestep": False,
            "running": not self.testbed.stopped,
        }

    def _system_reset(self, arguments: Arguments) -> None:
        self.testbed.reset()
        for name in sorted(self._leaving):
            self._remove(name)
        self._event("RESET", {"guest": False, "reason": "host-qmp-system-reset"})

    def _quit(self, arguments: Arguments) -> None:
        self._event("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        self.quit = True

    # -- devices

    def _device_add(self, arguments: Arguments) -> None:
        given = {key: _text(value) for key, value in arguments.items()}
        name = self.plug.add(Part(given.pop("driver", ""), given))
        slot = self.plug.slot_of(name)
        if slot is not None:
            self.hotplug.came |= 1 << slot

    def _device_del(self, arguments: Arguments) -> None:
        name = _text(arguments.get("id", ""))
        if name in self.plug.others:
            self.plug.others.discard(name)
            self._deleted(name)
            return
        slot = self.plug.slot_of(name)
        if slot is None:
            raise UsageError(f"Device '{name}' not found")
        self._leaving.add(name)
        self.hotplug.going |= 1 << slot

    def _ejected(self, slot: int) -> None:
        for name in sorted(self._leaving):
            if self.plug.slot_of(name) == slot:
                self._remove(name)

    def _remove(self, name: str) -> None:
        self._leaving.discard(name)
        if self.plug.remove(name):
            self._deleted(name)

    def _deleted(self, name: str) -> None:
        self._event("DEVICE_DELETED", {"device": name, "path": f"/machine/peripheral/{name}"})

    def _block_resize(self, arguments: Arguments) -> None:
        name = _text(arguments.get("device", arguments.get("node-name", "")))
        size = arguments.get("size")
        disk = self.plug.disks.get(name)
        if disk is None:
            raise UsageError(f"Cannot find device='{name}' nor node-name='{name}'")
        if type(size) is not int or not 0 <= size <= MOST_DISK_BYTES:
            raise UsageError(f"expected a size of at most 128 PiB, not {size!r:.40}")
        disk.resize(size)
        for function in self.plug.functions.values():
            if isinstance(function, VirtioPci) and getattr(function.virtio, "disk", None) is disk:
                function.virtio.config_changed()

    # -- networks

    def _announce(self, arguments: Arguments) -> None:
        def ms(key: str) -> float:
            value = arguments.get(key, 0)
            if not isinstance(value, int) or not 0 <= value <= 100_000:
                raise UsageError(f"expected {key} from 0 to 100000 ms, not {value!r:.40}")
            return value / 1000

        rounds = min(int(ms("rounds") * 1000), MOST_ROUNDS)
        ident = _text(arguments.get("id", ""))
        self.announcements.pop(ident, None)
        self._announce_all()
        if rounds > 1:
            self.announcements[ident] = (ms("initial"), ms("step"), ms("max"), rounds - 1)

    def _announce_all(self) -> None:
        for name, port in self.plug.ports.items():
            mac = self.plug.macs.get(name)
            if mac is not None:
                port.send(_rarp(mac))

    def announced(self, ident: str) -> None:
        """The delay of an announcement is over: send it, and plan the next."""
        delay, step, longest, rounds = self.announcements.pop(ident)
        self._announce_all()
        if rounds > 1:
            self.announcements[ident] = (min(delay + step, longest), step, longest, rounds - 1)

    # -- questions

    def _list_types(self, arguments: Arguments) -> Any:
        implements = arguments.get("implements")
        return types.types(implements, bool(arguments.get("abstract", False)))

    def _list_properties(self, arguments: Arguments) -> Any:
        name = arguments.get("typename", "")
        if name not in types.PROPERTIES:
            raise UsageError(f"Device '{name}' not found")
        known = types.PROPERTIES[name]
        return [{"name": key, "type": kind} for key, kind in sorted(known.items())]

    def _qom_list(self, arguments: Arguments) -> Any:
        match arguments.get("path"):
            case "/":
                return [{"name": "machine", "type": "child<pc-i440fx-7.2-machine>"}]
            case "/machine":
                names = ("peripheral", "peripheral-anon", "unattached")
                return [{"name": name, "type": "child<container>"} for name in names]
            case "/machine/peripheral":
                return [
                    {"name": name, "type": "child<device>"}
                    for name in sorted({*self.plug.functions, *self.plug.others})
                ]
            case "/machine/peripheral-anon" | "/machine/unattached":
                return []
            case path:
                raise UsageError(f"Device '{path}' not found")

    def _human(self, arguments: Arguments) -> Any:
        line = _text(arguments.get("command-line", ""))
        try:
            words = shlex.split(line)
        except ValueError:
            words = []
        match words:
            case ["qemu-io", name, command]:
                disk = self.plug.disks.get(name)
                if disk is None:
                    return f"Error: Cannot find device='{name}' nor node-name='{name}'\r\n"
                try:
                    disk.command(command)
                except UsageError as error:
                    return f"Error: {error}\r\n"
                if command.startswith("resume "):
                    self.testbed.release(command.split()[1])
                return ""
            case ["stop"]:
                self._stop({})
                return ""
            case ["cont" | "c"]:
                self._continue({})
                return ""
            case ["info", "status"]:
                paused = "" if self._status == "running" else f" ({self._status})"
                return f"VM status: {'paused' if paused else 'running'}{paused}\r\n"
            case ["info", "version"]:
                return f"{Qmp.version()['package']}\r\n"
            case _:
                name = words[0] if words else line
                return f"unknown command: '{name[:80]}'\r\n"

    def _cpus(self, arguments: Arguments) -> Any:
        return [{
            "cpu-index": 0,
            "qom-path": "/machine/unattached/device[0]",
            "thread-id": 0,
            "target": "x86_64",
            "props": {"core-id": 0, "thread-id": 0, "socket-id": 0},
        }]  # fmt: skip


def _text(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _rarp(mac: bytes) -> bytes:
    """A request of the reverse address resolution protocol (RFC 903), to everybody, padded."""
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 3) + mac + bytes(4) + mac + bytes(4)
    return (b"\xff" * 6 + mac + RARP.to_bytes(2, "big") + body).ljust(60, b"\0")


_COMMANDS: Final[dict[str, Callable[[Monitor, Arguments], Any]]] = {
    "announce-self": Monitor._announce,
    "block_resize": Monitor._block_resize,
    "cont": Monitor._continue,
    "device-list-properties": Monitor._list_properties,
    "device_add": Monitor._device_add,
    "device_del": Monitor._device_del,
    "human-monitor-command": Monitor._human,
    "qom-list": Monitor._qom_list,
    "qom-list-types": Monitor._list_types,
    "query-commands": lambda monitor, given: [{"name": name} for name in sorted(_COMMANDS)],
    "query-cpus-fast": Monitor._cpus,
    "query-kvm": lambda monitor, given: {"enabled": False, "present": False},
    "query-machines": lambda monitor, given: types.machines(),
    "query-name": lambda monitor, given: {},
    "query-status": Monitor._query_status,
    "query-target": lambda monitor, given: {"arch": "x86_64"},
    "query-version": lambda monitor, given: Qmp.version(),
    "quit": Monitor._quit,
    "stop": Monitor._stop,
    "system_reset": Monitor._system_reset,
}
