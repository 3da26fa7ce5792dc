"""TLS: the hub's own certificate."""

import ssl

from ..config import Config
from ..errors import UsageError


def server_context(config: Config) -> ssl.SSLContext | None:
    """What `--tls-cert` and `--tls-key` ask for, None if neither is given. Raises UsageError."""
    if not config.tls_cert and not config.tls_key:
        return None
    if not config.tls_cert or not config.tls_key:
        raise UsageError("--tls-cert and --tls-key belong together; give both.")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    _load(context, config)
    return context


def renew(context: ssl.SSLContext, config: Config) -> None:
    """Have new connections get the certificate that is there now. Raises UsageError, and then they get the old one."""
    server_context(config)  # a pair that does not fit would leave half of it behind
    _load(context, config)


def _load(context: ssl.SSLContext, config: Config) -> None:
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key, password="")  # with a password: refused, not asked
    except (OSError, ValueError) as error:  # SSLError is an OSError
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"Cannot use --tls-cert {config.tls_cert} with --tls-key {config.tls_key}: {why}.") from None
