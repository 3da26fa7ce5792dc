"""`hub mcp`: the hub as tools for an agent that speaks the Model Context Protocol."""

import argparse
from typing import Any

from ..errors import UsageError, install
from .grammar import add_command
from .http import add_where, named_address, token_of


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(
        commands,
        "mcp",
        run,
        "serve the hub's tools to an agent over stdio (MCP; the extra mcp)",
        "hub mcp\nhub mcp --allow write",
    )
    add_where(command)
    command.add_argument(
        "--allow", choices=("read", "write"), default="read", help="commands that may be called: read, or write, too"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until stdin ends. A hub need not be there yet. Raises UsageError without the extra."""
    import asyncio

    from ..client.client import PromptClient

    try:
        from ..client import tools
    except ImportError as error:
        raise UsageError(f"hub mcp needs the extra mcp: {install('mcp')} ({error}).") from None
    from ..hub import VERSION

    url, token = named_address(args), token_of(args)

    def client() -> PromptClient:
        return PromptClient(url, state_dir=args.state_dir, token=token, ca=args.ca, patience=tools.PATIENCE)

    asyncio.run(tools.serve(client, VERSION, writes=args.allow == "write"))
    return 0
