"""The seam for what comes from outside: a replay makes the batches of the recording."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.core.inputs import Batch, Input, Inputs

WORK = (
    ("net0", "frame", [b"a", b"b"]),
    ("net0", "frame", [b"c"]),
    ("net0", "link", [b"\0"]),
    ("net1", "frame", [b"d"]),
    ("net0", "frame", [b"e"]),
)


def listening() -> tuple[Inputs, list[tuple[str, Sequence[bytes]]]]:
    inputs, got = Inputs(), list[tuple[str, Sequence[bytes]]]()
    inputs.register_batches("net0", lambda kind, data: got.append((kind, list(data))))
    return inputs, got


def deliver(inputs: Inputs, *moments: tuple[int, int]) -> list[Batch]:
    found: list[Batch] = []
    for moment in moments:
        for batch in inputs.due(*moment):
            found.append(batch)
            inputs.dispatch(batch)
    return found


def test_what_comes_at_once_comes_in_batches_and_so_it_does_in_a_replay() -> None:
    inputs, got = listening()
    for work in WORK:
        inputs.post_all(*work)
    recorded = deliver(inputs, (5, 50))
    inputs.post_all("net0", "frame", [b"f"])
    recorded += deliver(inputs, (5, 60))
    frames = [("frame", [b"a", b"b", b"c"]), ("link", [b"\0"]), ("frame", [b"e"])]
    assert got == [*frames, ("frame", [b"f"])]
    single = [inp for batch in recorded for inp in batch]
    assert [inp.data for inp in single] == [b"a", b"b", b"c", b"\0", b"d", b"e", b"f"]
    again, got_again = listening()
    again.replay(single)
    # Not delivered where they should be, they are cut up all the same.
    assert deliver(again, (5, 49), (6, 0)) == recorded
    assert got_again == got
    assert inputs.mark() == again.mark() == (7, {})


def test_a_receiver_of_single_inputs() -> None:
    inputs, got = Inputs(), list[tuple[str, bytes]]()
    inputs.register("com1", lambda kind, data: got.append((kind, data)))
    inputs.post_all("com1", "rx", [b"1", b"2"])
    inputs.post_all("com1", "rx", [])
    inputs.post("nobody", "rx", b"3")
    assert deliver(inputs, (1, 1))[1] == Batch(1, 1, "nobody", "rx", [b"3"])
    assert got == [("rx", b"1"), ("rx", b"2")]
    assert [*Batch(1, 2, "t", "k", [b"x"])] == [Input(1, 2, "t", "k", b"x")]
