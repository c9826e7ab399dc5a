"""A connection to an NBD server: exact reads and writes, TLS, and errors with a name."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from workbench.block.errors import RemoteError
from workbench.block.nbd.uri import Address
from workbench.errors import InputFileError, os_error_text

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 60.0


class Wire:
    """The bytes to and from a server."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.name = address.name
        try:
            if address.socket:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.settimeout(CONNECT_TIMEOUT_S)
                self._socket.connect(address.socket)
            else:
                where = (address.host, address.port)
                self._socket = socket.create_connection(where, CONNECT_TIMEOUT_S)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, UnicodeError) as error:
            self.close()
            reason = os_error_text(error) if isinstance(error, OSError) else str(error)
            raise RemoteError(f"{self.name} cannot be reached: {reason}") from None
        self._socket.settimeout(ANSWER_TIMEOUT_S)

    def start_tls(self) -> None:
        """Go on encrypted."""
        address = self.address
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if address.certificates:
                self._load(context, Path(address.certificates))
            else:
                context.load_default_certs()
        except OSError as error:  # ssl.SSLError is one
            raise InputFileError(
                f"the certificates for {self.name} cannot be loaded: {os_error_text(error)}"
            ) from None
        if not address.verify_peer:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        host = address.tls_hostname or address.host or "localhost"
        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=host)
        except (OSError, ValueError) as error:
            self.close()
            raise RemoteError(f"{self.name}: TLS fails: {_reason(error)}") from None

    @staticmethod
    def _load(context: ssl.SSLContext, directory: Path) -> None:
        context.load_verify_locations(directory / "ca-cert.pem")
        certificate = directory / "client-cert.pem"
        if certificate.exists():
            context.load_cert_chain(certificate, directory / "client-key.pem")

    def send(self, *parts: bytes | memoryview) -> None:
        """Send all of it."""
        try:
            for part in parts:
                self._socket.sendall(part)
        except OSError as error:
            raise self._gone(error) from None

    def receive(self, count: int) -> bytes:
        """Just `count` bytes."""
        data = bytearray(count)
        view = memoryview(data)
        try:
            while view:
                got = self._socket.recv_into(view)
                if not got:
                    raise RemoteError(f"{self.name} has closed the connection")
                view = view[got:]
        except OSError as error:
            raise self._gone(error) from None
        return bytes(data)

    def close(self) -> None:
        """Let go."""
        if hasattr(self, "_socket"):
            self._socket.close()

    def _gone(self, error: OSError) -> RemoteError:
        return RemoteError(f"{self.name} does not answer: {_reason(error)}")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error).replace("_", " ").lower()
    return os_error_text(error) if isinstance(error, OSError) else str(error)
