"""QMP: bytes in, messages out."""

import json
import random

import pytest

from workbench.qtest.assembly import assemble
from workbench.qtest.options import parse
from workbench.qtest.qmp import Qmp


@pytest.fixture
def qmp():
    holder = []
    made = assemble(parse(["-nodefaults"]), lambda name, data=None: holder[0].event(name, data))
    holder.append(Qmp(made.monitor.execute))
    return holder[0]


def ready(qmp):
    assert qmp.feed(b'{"execute": "qmp_capabilities"}') == [{"return": {}}]
    return qmp


def say(qmp, command, **arguments):
    return qmp.feed(json.dumps({"execute": command, "arguments": arguments}).encode())


def test_nothing_before_the_handshake(qmp):
    assert qmp.greeting()["QMP"]["capabilities"] == []
    (answer,) = say(qmp, "query-status")
    assert answer["error"]["class"] == "CommandNotFound"
    assert say(ready(qmp), "query-status")[0]["return"]["running"] is True


def test_values_follow_each_other_in_any_pieces(qmp):
    ready(qmp)
    text = b'{"execute": "query-name", "id": "}{"}\n {"execute": "nothing", "id": [1]}'
    out = [message for byte in text for message in qmp.feed(bytes([byte]))]
    assert out[0] == {"return": {}, "id": "}{"}
    assert out[1]["error"]["class"] == "CommandNotFound"
    assert out[1]["id"] == [1]


def test_the_answer_comes_before_the_events(qmp):
    answer, event = say(ready(qmp), "system_reset")
    assert answer == {"return": {}}
    assert event["event"] == "RESET"
    assert event["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
    assert [m.get("event") for m in say(qmp, "stop")] == [None, "STOP"]
    assert say(qmp, "query-status")[0]["return"]["status"] == "paused"
    assert [m.get("event") for m in say(qmp, "cont")] == [None, "RESUME"]


def test_types_and_machines(qmp):
    ready(qmp)
    types = say(qmp, "qom-list-types", implements="device", abstract=True)[0]["return"]
    by_name = {t["name"]: t for t in types}
    assert by_name["virtio-blk-pci"]["parent"] == "pci-device"
    assert by_name["pci-device"]["abstract"] is True
    assert "IDE" not in by_name
    machines = say(qmp, "query-machines")[0]["return"]
    assert {m["name"]: m.get("alias") for m in machines} == {"pc-i440fx-7.2": "pc", "none": None}


def test_devices_come_and_go(qmp):
    ready(qmp)
    assert say(qmp, "device_add", driver="virtio-rng-pci", id="r", addr="6") == [{"return": {}}]
    (twice,) = say(qmp, "device_add", driver="virtio-rng-pci", id="r")
    assert twice["error"]["desc"] == "Duplicate device ID 'r'"
    (taken,) = say(qmp, "device_add", driver="e1000", addr="6")
    assert taken["error"]["desc"] == "PCI slot 6.0 is in use"
    assert {"name": "r", "type": "child<device>"} in say(
        qmp, "qom-list", path="/machine/peripheral"
    )[0]["return"]
    assert say(qmp, "device_del", id="r") == [{"return": {}}]
    assert [m.get("event") for m in say(qmp, "system_reset")] == [None, "DEVICE_DELETED", "RESET"]
    (gone,) = say(qmp, "device_del", id="r")
    assert gone["error"]["desc"] == "Device 'r' not found"
    assert say(qmp, "device_add", driver="virtio-rng-pci", id="r") == [{"return": {}}]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"garbage\n", "Invalid JSON syntax"),
        (b"[1]", "QMP input must be a JSON object"),
        (b"{}", "QMP input lacks member 'execute'"),
        (b'{"execute": "stop", "arguments": 3}', "QMP input member 'arguments' must be an object"),
        (b"{" + b"[" * 5000 + b"]" * 5000 + b"}", "Invalid JSON syntax"),
    ],
)
def test_what_is_wrong_is_told(qmp, text, sentence):
    assert ready(qmp).feed(text)[0]["error"]["desc"] == sentence


def test_hostile_bytes(qmp):
    ready(qmp)
    rng = random.Random(11)
    pieces = [
        b'{"execute":', b'"stop"', b'"device_add"', b"{", b"}", b"[", b"]", b",", b'"', b"\\",
        b"\xff", b"1e999", b'"arguments":', b'{"driver":"e1000","addr":"99"}', b"\n", b":",
    ]  # fmt: skip
    for _ in range(3000):
        for message in qmp.feed(b"".join(rng.choices(pieces, k=rng.randrange(1, 8)))):
            assert {"return", "error", "event"} & message.keys()
    flood = qmp.feed(b'"' + b"{" * (2 << 20))
    assert flood[-1]["error"]["desc"].startswith("expected a command of at most")
