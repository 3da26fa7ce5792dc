"""hub.toml: what cannot be a flag, read whole and checked whole before anything starts."""
