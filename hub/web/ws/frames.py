"""WebSocket frames (RFC 6455, no extensions): bytes in, messages out. Knows no socket."""

import codecs

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
MAX_EMPTY = 1024  # fragments of one message with nothing in them: they cost no memory, but time

_UTF8 = codecs.getincrementaldecoder("utf-8")


class Violation(Exception):
    """What a client may not send. `code` is the close code that says so (RFC 6455, section 7.4.1)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Frames:
    """Takes what a client sends, in pieces of any size, and gives back its messages.

    `most` is the largest message in bytes; a larger one is refused when its length is declared, before it comes.
    """

    __slots__ = ("_at", "_buffer", "_decoder", "_empty", "_most", "_size", "_text")

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer: bytes | bytearray = b""
        self._at = self._size = self._empty = 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text: list[str] | None = None  # of a message in fragments

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        if self._buffer:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer[self._at :])
                self._at = 0
            self._buffer += data
        else:
            self._buffer = data

    @property
    def waiting(self) -> int:
        """How many bytes have not been given back yet."""
        return len(self._buffer) - self._at

    def next(self) -> tuple[int, str | bytes] | None:
        """The next frame: TEXT with a whole message, CONTINUATION for a piece of one that is not whole yet, or a
        control frame with its bytes; None until more comes. Raises Violation, after which there is no next."""
        frame = self._frame()
        if frame is None:
            self._compact()
            return None
        opcode, final, payload = frame
        if opcode >= CLOSE:
            return opcode, payload
        return self._assemble(opcode, final, payload)

    def _compact(self) -> None:
        if self._at:
            left = self._buffer[self._at :]
            self._buffer, self._at = (bytearray(left) if left else b""), 0

    def _frame(self) -> tuple[int, bool, bytes] | None:
        buffer, at = self._buffer, self._at
        left = len(buffer) - at
        if left < 2:
            return None
        first, size, head = buffer[at], buffer[at + 1] & 0x7F, 2
        opcode, final = first & 0x0F, first >= 0x80
        self._check(first, opcode, masked=buffer[at + 1] >= 0x80, short=final and size <= 125)
        if size >= 126:
            head = 4 if size == 126 else 10
            if left < head:
                return None
            size = int.from_bytes(buffer[at + 2 : at + head], "big")
        if opcode < CLOSE and self._size + size > self._most:
            raise Violation(1009, f"A message can have {self._most} bytes at most")
        if left < head + 4 + size:
            return None
        body = at + head + 4
        self._at = body + size
        return opcode, final, unmask(buffer[at + head : body], buffer[body : body + size])

    def _check(self, first: int, opcode: int, *, masked: bool, short: bool) -> None:
        if first & 0x70 or opcode not in OPCODES:
            raise Violation(1002, "Unknown frame")
        if not masked:  # a page cannot choose the bytes on the wire, and so not attack proxies (RFC 6455, 10.3)
            raise Violation(1002, "Frames of a client must be masked")
        if opcode >= CLOSE and not short:
            raise Violation(1002, "Control frames are short and whole")
        if opcode == BINARY:
            raise Violation(1003, "Text frames only")
        if opcode <= TEXT and (opcode == CONTINUATION) != (self._text is not None):
            raise Violation(1002, "Fragments out of order")

    def _assemble(self, opcode: int, final: bool, payload: bytes) -> tuple[int, str | bytes]:
        try:
            if opcode == TEXT and final:
                return TEXT, payload.decode()
            if self._text is None:
                self._text, self._decoder = [], _UTF8()
            assert self._decoder is not None
            self._text.append(self._decoder.decode(payload, final))
        except UnicodeDecodeError:
            raise Violation(1007, "The text is not UTF-8") from None
        self._size += len(payload)
        self._empty += not payload
        if self._empty > MAX_EMPTY:
            raise Violation(1008, "Too many empty fragments")
        if not final:
            return CONTINUATION, payload
        text = "".join(self._text)
        self._text = self._decoder = None
        self._size = self._empty = 0
        return TEXT, text


def unmask(mask: bytes | bytearray, data: bytes | bytearray) -> bytes:
    """The payload of a client's frame (RFC 6455, section 5.3): one exclusive or over numbers as long as the data."""
    size = len(data)
    if not any(mask):
        return bytes(data)
    key = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def control(opcode: int, payload: bytes = b"") -> bytes:
    """A control frame of the hub's; at most 125 bytes of payload (RFC 6455, section 5.5)."""
    return bytes((0x80 | opcode, len(payload))) + payload


def close_frame(code: int, reason: str) -> bytes:
    """A close frame; the reason is cut to what fits."""
    text = reason.encode()[:123].decode(errors="ignore").encode()
    return control(CLOSE, code.to_bytes(2, "big") + text)


def closing(payload: bytes) -> int | None:
    """The code of a client's close frame, None if it gave none. Raises Violation for what may not be in one."""
    if not payload:
        return None
    code = int.from_bytes(payload[:2], "big")
    allowed = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    if len(payload) < 2 or not (allowed or 3000 <= code <= 4999):
        raise Violation(1002, "Not a close code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise Violation(1007, "The reason is not UTF-8") from None
    return code
