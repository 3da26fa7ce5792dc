"""A hub from the other side of the wire."""
