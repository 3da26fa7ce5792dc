"""One stream, many cursors."""
