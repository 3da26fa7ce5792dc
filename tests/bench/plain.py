"""What the hub is measured against: bare aiohttp. Answers a POST; sends every event to every client, one by one."""

import json
import sys

from aiohttp import web

clients: set[web.WebSocketResponse] = set()


async def post(request: web.Request) -> web.Response:
    event = await request.json()
    text = json.dumps({"type": "event", "payload": event}, separators=(",", ":"))
    for client in clients:
        await client.send_str(text)
    return web.json_response({"accepted": 1})


async def websocket(request: web.Request) -> web.WebSocketResponse:
    client = web.WebSocketResponse(compress=False, heartbeat=30)
    await client.prepare(request)
    clients.add(client)
    async for message in client:
        await client.send_str(message.data)
    clients.discard(client)
    return client


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/api/events", post)
    app.router.add_get("/ws", websocket)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
