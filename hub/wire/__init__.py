"""What crosses the wire; keeps no state."""
