"""Which broker a URL names."""

import re

from ...config import Config
from ...errors import UsageError, install
from ...wire.names import MADE_UP
from .broker import Broker, Limits


def make_broker(config: Config) -> Broker:
    """The broker for `--broker URL`. Raises UsageError for a scheme that no broker has."""
    scheme, colon, rest = config.broker.partition(":")
    if config.broker == "sqlite:":
        from .sqlite import SqliteBroker

        limits = Limits(config.keep_events, config.keep_bytes, config.keep_seconds)
        state = Limits(config.state_items, config.state_bytes)
        return SqliteBroker(config.state_dir, limits, state, full=config.sync == "full")
    if scheme == "memory" and not rest:
        from .memory import MemoryBroker

        return MemoryBroker(config.window_events, config.window_bytes, MADE_UP if config.demo else "")
    if scheme in ("redis", "rediss", "unix"):
        return _redis(config)
    known = "sqlite:, memory:, redis:, rediss: and unix:"
    # What is no scheme, with nothing behind it, may be a password that stands alone.
    if not colon or not re.fullmatch(r"[a-z][a-z0-9+.-]{0,15}", scheme):
        raise UsageError(f"The broker must be named by a URL; this hub knows {known}.")
    raise UsageError(f"There is no broker for {scheme}:{rest and '…'}; this hub knows {known}.")


def _redis(config: Config) -> Broker:
    try:
        from .redis import RedisBroker
        from .server import Server
    except ImportError:
        raise UsageError(f"This broker needs the extra redis: {install('redis')}.") from None
    limits = Limits(config.keep_events, config.keep_bytes, config.keep_seconds)
    state = Limits(config.state_items, config.state_bytes)
    return RedisBroker(Server(config.broker), limits, state, config.hub_id, config.state_dir)
