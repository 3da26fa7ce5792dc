"""What ids look like on the wire, and new ones."""

import os
from typing import Any


def is_id(text: Any) -> bool:
    """Whether `text` can be an id: 1 to 128 printable characters."""
    return isinstance(text, str) and 1 <= len(text) <= 128 and text.isprintable()


def new_id() -> str:
    """A random UUID4 (RFC 9562, section 5.4), put together by hand: a third of uuid.uuid4()'s cost."""
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"
