"""NBD client: fixed newstyle negotiation, simple or structured replies, one request at a time.

Everything from the server is bounded before it is believed; a wrong word ends the connection with a
RemoteError. Not modelled: oldstyle negotiation, block status, extended headers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from workbench.block.errors import RemoteError
from workbench.block.image import LARGEST_BYTES, SECTOR_BYTES, Image
from workbench.block.nbd import protocol as p
from workbench.block.nbd.uri import Address
from workbench.block.nbd.wire import Wire
from workbench.errors import InputFileError


class NbdImage(Image):
    """An export of a server. `on_close` runs after the connection has ended."""

    format = "nbd"

    def __init__(
        self,
        address: Address,
        *,
        read_only: bool,
        structured: bool = True,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._on_close = on_close
        self._closed = False
        self._failed = False
        self._cookie = 0
        self._flags = 0
        self._block = 1
        self._most = p.MAX_REQUEST_BYTES
        self._structured = False
        self._wire = Wire(address)
        try:
            size = self._negotiate(address, structured)
            if not 0 <= size <= LARGEST_BYTES:
                raise RemoteError(f"{address.name}: expected at most 2^62 bytes, not {size}")
            if self._flags & p.EXPORT_READ_ONLY and not read_only:
                raise InputFileError(f"{address.name} lets nobody write")
        except BaseException:
            self._wire.close()
            raise
        super().__init__(address.name, size // SECTOR_BYTES * SECTOR_BYTES, read_only=read_only)

    @property
    def structured(self) -> bool:
        """Does the server send structured replies?"""
        return self._structured

    # -- negotiation

    def _negotiate(self, address: Address, structured: bool) -> int:
        """Size of the export."""
        wire = self._wire
        if wire.receive(8) != p.NBDMAGIC:
            raise self._lie("expected an NBD server")
        style = wire.receive(8)
        if style == p.OLD_STYLE:
            raise RemoteError(f"{wire.name} speaks the old style of the protocol only")
        if style != p.IHAVEOPT:
            raise self._lie("expected an NBD server")
        flags = int.from_bytes(wire.receive(2), "big")
        if not flags & p.FLAG_FIXED_NEWSTYLE:
            raise RemoteError(f"{wire.name} does not speak fixed newstyle")
        no_zeroes = flags & p.FLAG_NO_ZEROES
        wire.send((p.FLAG_FIXED_NEWSTYLE | no_zeroes).to_bytes(4, "big"))
        if address.tls:
            answer, _ = self._option(p.OPT_STARTTLS, b"")
            if answer != p.REP_ACK:
                raise RemoteError(f"{wire.name} offers no TLS")
            wire.start_tls()
        if structured:
            answer, _ = self._option(p.OPT_STRUCTURED_REPLY, b"")
            if answer == p.REP_ERR_TLS_REQD:
                raise self._refused(answer, "")
            self._structured = answer == p.REP_ACK
        size = self._go(address.export.encode())
        return self._export_name(address.export.encode(), bool(no_zeroes)) if size is None else size

    def _go(self, export: bytes) -> int | None:
        """Choose the export; None if the server does not know this option."""
        data = len(export).to_bytes(4, "big") + export + b"\0\1\0\3"  # one request: block size
        answer, infos = self._option(p.OPT_GO, data)
        if answer == p.REP_ERR_UNSUP:
            return None
        size: int | None = None
        for info in infos:
            kind = int.from_bytes(info[:2], "big")
            if kind == p.INFO_EXPORT and len(info) == 12:
                size, self._flags = (
                    int.from_bytes(info[2:10], "big"),
                    int.from_bytes(info[10:], "big"),
                )
            elif kind == p.INFO_BLOCK_SIZE and len(info) == 14:
                self._set_block_size(int.from_bytes(info[2:6], "big"),
                                     int.from_bytes(info[10:], "big"))  # fmt: skip
        if size is None:
            raise self._lie("expected the size of the export")
        return size

    def _set_block_size(self, least: int, most: int) -> None:
        if not 1 <= least <= p.MAX_BLOCK_BYTES or least & (least - 1) or most < least:
            raise self._lie(f"expected a block size up to {p.MAX_BLOCK_BYTES}, not {least}")
        self._block = least
        self._most = min(self._most, most // least * least)

    def _export_name(self, export: bytes, no_zeroes: bool) -> int:
        self._wire.send(p.OPTION.pack(p.IHAVEOPT, p.OPT_EXPORT_NAME, len(export)), export)
        reply = self._wire.receive(10 if no_zeroes else 134)
        self._flags = int.from_bytes(reply[8:10], "big")
        return int.from_bytes(reply[:8], "big")

    def _option(self, option: int, data: bytes) -> tuple[int, list[bytes]]:
        """Ask for an option; gives the final reply's type and the information before it."""
        self._wire.send(p.OPTION.pack(p.IHAVEOPT, option, len(data)), data)
        infos: list[bytes] = []
        for _ in range(p.MAX_OPTION_REPLIES):
            header = self._wire.receive(p.OPTION_REPLY.size)
            magic, about, kind, length = p.OPTION_REPLY.unpack(header)
            if magic != p.OPTION_REPLY_MAGIC or about != option:
                raise self._lie("expected a reply to an option")
            if length > p.MAX_OPTION_REPLY_BYTES:
                raise self._lie(f"expected a shorter reply to an option than {length} bytes")
            body = self._wire.receive(length)
            if kind == p.REP_ACK:
                return kind, infos
            if kind == p.REP_INFO:
                infos.append(body)
            elif kind & p.REP_ERROR:
                if option == p.OPT_GO and kind != p.REP_ERR_UNSUP:
                    raise self._refused(kind, _text(body))
                return kind, infos
            if len(infos) > 64:
                break
        raise self._lie("expected an end of the replies to an option")

    def _refused(self, kind: int, text: str) -> RemoteError:
        reason = p.REP_ERRORS.get(kind, f"refuses ({kind & ~p.REP_ERROR})")
        return RemoteError(f"{self._wire.name} {reason}" + (f": {text}" if text else ""))

    def _lie(self, what: str) -> RemoteError:
        self._failed = True
        return RemoteError(f"{self._wire.name}: {what}")

    # -- the image

    def _read(self, offset: int, length: int) -> bytes:
        block = self._block
        start = offset // block * block
        end = -(-(offset + length) // block) * block
        parts = []
        for at in range(start, end, self._most):
            parts.append(self._request(p.CMD_READ, at, min(self._most, end - at)))
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data if len(data) == length else data[offset - start : offset - start + length]

    def _write(self, offset: int, data: bytes) -> None:
        head = offset % self._block
        tail = -(offset + len(data)) % self._block
        if head or tail:
            end = offset + len(data)
            before = self._read(offset - head, head) if head else b""
            after = self._read(end, tail) if tail else b""
            data = before + data + after
            offset -= head
        view = memoryview(data)
        for at in range(0, len(data), self._most):
            part = view[at : at + self._most]
            self._request(p.CMD_WRITE, offset + at, len(part), part)

    def _write_zeroes(self, offset: int, length: int) -> None:
        end = offset + length
        first, last = -(-offset // self._block) * self._block, end // self._block * self._block
        if not self._flags & p.EXPORT_SEND_WRITE_ZEROES or first >= last:
            for at in range(offset, end, self._most):
                self._write(at, bytes(min(self._most, end - at)))
            return
        if offset < first:
            self._write(offset, bytes(first - offset))
        most = (1 << 30) // self._block * self._block
        for at in range(first, last, most):
            self._request(p.CMD_WRITE_ZEROES, at, min(most, last - at))
        if last < end:
            self._write(last, bytes(end - last))

    def flush(self) -> None:
        """To the server's stable storage."""
        if not self.read_only and self._flags & p.EXPORT_SEND_FLUSH:
            self._request(p.CMD_FLUSH, 0, 0)

    def close(self) -> None:
        """Flush, say goodbye, run `on_close`."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._failed:
                self.flush()
                with suppress(RemoteError):
                    self._wire.send(p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.CMD_DISC, 0, 0, 0))
        finally:
            self._wire.close()
            if self._on_close is not None:
                self._on_close()

    # -- requests

    def _request(
        self, command: int, offset: int, length: int, data: memoryview | None = None
    ) -> bytes:
        """One request and its reply; gives what was read."""
        if self._failed:
            raise RemoteError(f"{self.name}: the connection has failed before")
        self._cookie += 1
        header = p.REQUEST.pack(p.REQUEST_MAGIC, 0, command, self._cookie, offset, length)
        # Whatever interrupts us in the middle leaves the connection in an unknown state.
        self._failed = True
        self._wire.send(header, *([] if data is None else [data]))
        wanted = length if command == p.CMD_READ else 0
        magic = int.from_bytes(self._wire.receive(4), "big")
        if magic == p.SIMPLE_REPLY_MAGIC and not (self._structured and command == p.CMD_READ):
            code, result = self._simple(wanted)
        elif magic == p.STRUCTURED_REPLY_MAGIC and self._structured:
            code, result = self._chunks(offset, wanted)
        else:
            raise self._lie(f"expected a reply, not {magic:#x}")
        self._failed = False
        if code:
            verb = {p.CMD_READ: "read", p.CMD_FLUSH: "flush"}.get(command, "write")
            reason = os.strerror(p.ERRORS.get(code, code)).lower()
            raise RemoteError(f"{self.name} cannot {verb}: {reason}")
        return result

    def _simple(self, wanted: int) -> tuple[int, bytes]:
        code, cookie = p.SIMPLE_REPLY.unpack(self._wire.receive(p.SIMPLE_REPLY.size))
        self._check_cookie(cookie)
        return code, b"" if code else self._wire.receive(wanted)

    def _chunks(self, offset: int, wanted: int) -> tuple[int, bytes]:
        """Collect the chunks of a structured reply."""
        result, covered, code = bytearray(wanted), 0, 0
        for _ in range(p.MAX_CHUNKS):
            flags, kind, cookie, length = p.STRUCTURED_REPLY.unpack(
                self._wire.receive(p.STRUCTURED_REPLY.size)
            )
            self._check_cookie(cookie)
            if kind & p.CHUNK_IS_ERROR:
                code = self._error_chunk(length)
            elif kind == p.CHUNK_NONE:
                if length or not flags & p.CHUNK_DONE:
                    raise self._lie("expected an empty last chunk")
            elif kind in (p.CHUNK_OFFSET_DATA, p.CHUNK_OFFSET_HOLE):
                covered += self._data_chunk(kind, length, offset, result)
            else:
                raise self._lie(f"expected a chunk of data, not type {kind}")
            if flags & p.CHUNK_DONE:
                if not code and covered != wanted:
                    raise self._lie(f"expected {wanted} bytes, not {covered}")
                return code, bytes(result)
            if kind == p.CHUNK_NONE:
                break
            if int.from_bytes(self._wire.receive(4), "big") != p.STRUCTURED_REPLY_MAGIC:
                raise self._lie("expected another chunk")
        raise self._lie("expected an end of the reply")

    def _data_chunk(self, kind: int, length: int, offset: int, result: bytearray) -> int:
        """Put a chunk where it belongs; gives the bytes that it covers."""
        hole = kind == p.CHUNK_OFFSET_HOLE
        if (hole and length != 12) or (not hole and not 8 < length <= len(result) + 8):
            raise self._lie(f"expected a chunk of data, not {length} bytes")
        at = int.from_bytes(self._wire.receive(8), "big") - offset
        count = int.from_bytes(self._wire.receive(4), "big") if hole else length - 8
        if not (at >= 0 and count and at + count <= len(result)):
            raise self._lie("expected a chunk inside the request")
        result[at : at + count] = bytes(count) if hole else self._wire.receive(count)
        return count

    def _error_chunk(self, length: int) -> int:
        if not 6 <= length <= p.MAX_ERROR_BYTES:
            raise self._lie(f"expected an error, not {length} bytes")
        return int.from_bytes(self._wire.receive(length)[:4], "big") or 5

    def _check_cookie(self, cookie: int) -> None:
        if cookie != self._cookie:
            raise self._lie("expected the reply to the request that was sent")


def _text(raw: bytes) -> str:
    """What a server says, made safe to show."""
    text = raw[:200].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)
