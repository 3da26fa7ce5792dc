"""How events are kept and travel."""
