"""Frames that clients send (RFC 6455), put together into messages; no extensions."""

from struct import Struct
from typing import Final

CONTINUED: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_KNOWN: Final = frozenset({CONTINUED, TEXT, BINARY, CLOSE, PING, PONG})

_NO_CODES: Final = frozenset({1004, 1005, 1006, 1015})

_MEDIUM = Struct("!BBH")
_LARGE = Struct("!BBQ")

Message = tuple[int, bytes]


class Broken(Exception):
    """Not to be understood: close the connection with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Reader:
    __slots__ = ("_buffer", "_kind", "_most", "_parts", "_size", "_wanted", "broken")

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer: bytearray | None = None
        self._wanted = 0
        self._kind = CONTINUED
        self._parts: list[bytes] | None = None
        self._size = 0
        self.broken: Broken | None = None

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are now complete. After them, `broken` says whether more can come."""
        buffer: bytes | bytearray = data
        if self._buffer is not None:
            self._buffer += data
            buffer = self._buffer
            if len(buffer) < self._wanted:
                return []
        found: list[Message] = []
        at = 0
        try:
            while (size := self._read(buffer, at, found)) > 0:
                at += size
        except Broken as broken:
            self.broken = broken
            return found
        self._buffer = bytearray(buffer[at:]) if at < len(buffer) else None
        return found

    def _read(self, buffer: bytes | bytearray, at: int, found: list[Message]) -> int:
        """The length of the frame there; 0 when it is not all there yet."""
        end = len(buffer)
        self._wanted = 2
        if end - at < 2:
            return 0
        first, second = buffer[at], buffer[at + 1]
        opcode, size, start = first & 0x0F, second & 0x7F, at + 2
        if first & 0x70 or opcode not in _KNOWN:
            raise Broken(1002, "an extension that was not agreed on")
        if not second & 0x80:
            raise Broken(1002, "a frame without a mask")
        if opcode >= CLOSE and (size > 125 or not first & 0x80):
            raise Broken(1002, "a control frame too long or in parts")
        if size > 125:
            width = 2 if size == 126 else 8
            self._wanted = 2 + width
            if end < start + width:
                return 0
            size = int.from_bytes(buffer[start : start + width], "big")
            start += width
        if opcode < CLOSE and self._size + size > self._most:
            raise Broken(1009, "the message is too big")
        stop = start + 4 + size
        self._wanted = stop - at
        if end < stop:
            return 0
        payload = _unmasked(bytes(buffer[start + 4 : stop]), bytes(buffer[start : start + 4]))
        if opcode >= CLOSE:
            found.append((opcode, payload))
        else:
            self._take(opcode, payload, bool(first & 0x80), found)
        return stop - at

    def _take(self, opcode: int, payload: bytes, last: bool, found: list[Message]) -> None:
        if (opcode == CONTINUED) == (self._parts is None):
            raise Broken(1002, "parts of messages out of order")
        if self._parts is None:
            if last:
                found.append((opcode, payload))
                return
            self._kind, self._parts = opcode, []
        self._parts.append(payload)
        self._size += len(payload)
        if last:
            found.append((self._kind, b"".join(self._parts)))
            self._parts, self._size = None, 0


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def head(opcode: int, size: int) -> bytes:
    """The beginning of a frame of ours."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 65_536:
        return _MEDIUM.pack(0x80 | opcode, 126, size)
    return _LARGE.pack(0x80 | opcode, 127, size)


def closing(payload: bytes) -> int:
    """The code in a close frame, 1005 when it has none. Raises Broken for one that cannot be."""
    if not payload:
        return 1005
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not 1000 <= code < 5000 or code in _NO_CODES or 1016 <= code < 3000:
        raise Broken(1002, "no such close code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise Broken(1007, "the reason is not UTF-8") from None
    return code
