"""What the hub says of itself to programs: OpenAPI for plain HTTP, AsyncAPI for the WebSocket and the events."""
