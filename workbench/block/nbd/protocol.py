"""Numbers and records of the NBD protocol, and what a server is believed."""

from __future__ import annotations

import errno
import struct

NBDMAGIC = b"NBDMAGIC"
IHAVEOPT = b"IHAVEOPT"
OLD_STYLE = 0x00420281861253.to_bytes(8, "big")
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES = 1, 2
OPT_EXPORT_NAME, OPT_ABORT, OPT_STARTTLS, OPT_GO, OPT_STRUCTURED_REPLY = 1, 2, 5, 7, 8
REP_ACK, REP_INFO = 1, 3
REP_ERROR = 1 << 31
REP_ERR_UNSUP, REP_ERR_POLICY, REP_ERR_INVALID = (REP_ERROR | n for n in (1, 2, 3))
REP_ERR_TLS_REQD, REP_ERR_UNKNOWN = REP_ERROR | 5, REP_ERROR | 6
REP_ERRORS = {
    REP_ERR_UNSUP: "does not know the option",
    REP_ERR_POLICY: "forbids it",
    REP_ERR_INVALID: "calls the request invalid",
    REP_ERR_TLS_REQD: "demands TLS (use nbds:// or nbds+unix://)",
    REP_ERR_UNKNOWN: "has no such export",
    REP_ERROR | 7: "is shutting down",
    REP_ERROR | 8: "demands knowledge of its block size",
}
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3

EXPORT_READ_ONLY, EXPORT_SEND_FLUSH = 1 << 1, 1 << 2
EXPORT_SEND_WRITE_ZEROES = 1 << 6

CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_WRITE_ZEROES = 0, 1, 2, 3, 6
CHUNK_DONE = 1
CHUNK_NONE, CHUNK_OFFSET_DATA, CHUNK_OFFSET_HOLE = 0, 1, 2
CHUNK_ERROR, CHUNK_ERROR_OFFSET = 0x8001, 0x8002
CHUNK_IS_ERROR = 0x8000

OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IQ")  # after the magic
STRUCTURED_REPLY = struct.Struct(">HHQI")  # after the magic

MAX_OPTION_REPLY_BYTES = 65536
MAX_OPTION_REPLIES = 1000
MAX_CHUNKS = 1 << 16
MAX_ERROR_BYTES = 8192
MAX_REQUEST_BYTES = 8 << 20
MAX_BLOCK_BYTES = 65536  # largest minimum block size that is plausible

ERRORS = {
    1: errno.EPERM,
    5: errno.EIO,
    12: errno.ENOMEM,
    22: errno.EINVAL,
    28: errno.ENOSPC,
    75: errno.EOVERFLOW,
    95: errno.EOPNOTSUPP,
    108: errno.ESHUTDOWN,
}
