"""How a hub is reached: aiohttp lives here and in client/."""
