"""A test-only server for the Autobahn suite: the hub's own WebSocket, which here echoes what it gets."""

import sys
import tempfile
from pathlib import Path

from aiohttp import web

from hub import Hub, create_app
from hub.web.ws import connection, frames
from hub.wire.framing import websocket_frame


class Echo(connection.Connection):
    """Answers every message with itself."""

    def _handle(self, opcode: int, payload: str | bytes) -> None:
        if opcode == frames.TEXT and not self.ending:
            self.write(websocket_frame(payload.encode() if isinstance(payload, str) else payload))
        elif opcode != frames.TEXT:
            super()._handle(opcode, payload)


def main(port: int) -> None:
    with tempfile.TemporaryDirectory() as state:
        connection.Connection = Echo  # type: ignore[misc]
        hub = Hub(state_dir=Path(state), rate=0, heartbeat=3600.0, max_frame=32 * 2**20)
        web.run_app(create_app(hub), host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
