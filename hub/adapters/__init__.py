"""What others send, turned into events: one file a sender, pure functions."""
