"""Event logs: one interface, and the logs behind it."""
