"""What the hub tells others by itself: people by messages, programs by webhooks."""
