"""The event line: the durable log, and the overlay of what changed since the release."""
