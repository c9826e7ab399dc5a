"""JSON lines: every event in order, one object a line, the columns of its table by name."""

from __future__ import annotations

import json
from typing import IO

from workbench.trace.events import as_dict
from workbench.trace.reader import Trace

__all__ = ["write_json_lines"]


def write_json_lines(trace: Trace, file: IO[bytes]) -> int:
    """Write all events, each with its `seq` and `table`; returns their number.

    The first line is the header, with `table` "header". Bytes are hex digits.
    """
    encode = json.JSONEncoder(separators=(",", ":")).encode
    file.write(encode({"table": "header", **trace.header.to_json()}).encode() + b"\n")
    seq = 0
    for group in trace.event_groups():
        lines = []
        for event in group:
            lines.append(encode({"seq": seq, **as_dict(event)}))
            seq += 1
        file.write("".join(line + "\n" for line in lines).encode())
    return seq
