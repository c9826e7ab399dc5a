"""Packets as bytes."""

from hypothesis import given
from hypothesis import strategies as st

from workbench.gdbstub.framing import MAX_PACKET, Framing, Signal, escape, frame, unescape


def test_a_packet_is_acknowledged() -> None:
    framing = Framing()
    assert framing.feed(b"+$g#67") == [b"g"]
    assert framing.take() == b"+"


def test_a_wrong_checksum_is_refused() -> None:
    framing = Framing()
    assert framing.feed(b"$g#68") == []
    assert framing.take() == b"-"


def test_without_acknowledgements_nothing_is_answered() -> None:
    framing = Framing()
    framing.acks = False
    assert framing.feed(b"$g#00$m0,4#00") == [b"g", b"m0,4"]
    assert framing.take() == b""


def test_a_refused_answer_is_sent_again() -> None:
    framing = Framing()
    framing.send(b"OK")
    assert framing.take() == b"$OK#9a"
    framing.feed(b"-")
    assert framing.take() == b"$OK#9a"


def test_the_interrupt_byte() -> None:
    framing = Framing()
    assert framing.feed(b"$c#63\x03") == [b"c", Signal.INTERRUPT]


def test_a_packet_in_pieces() -> None:
    framing = Framing()
    for byte in frame(b"qSupported")[:-1]:
        assert framing.feed(bytes([byte])) == []
    assert framing.feed(frame(b"qSupported")[-1:]) == [b"qSupported"]


def test_a_packet_without_end_is_refused() -> None:
    framing = Framing()
    assert framing.feed(b"$" + b"x" * (2 * MAX_PACKET + 10)) == []
    assert framing.take() == b"-"
    assert framing.feed(b"$g#67") == [b"g"]


@given(st.binary(max_size=300))
def test_escapes_come_back(data: bytes) -> None:
    escaped = escape(data)
    assert unescape(escaped) == data
    assert not {0x23, 0x24, 0x2A} & set(escaped)
    framing = Framing()
    assert framing.feed(frame(escaped)) == [escaped]


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_at_all_are_taken(pieces: list[bytes]) -> None:
    framing = Framing()
    for piece in pieces:
        framing.feed(piece)
