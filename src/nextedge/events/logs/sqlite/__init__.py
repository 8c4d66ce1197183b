"""The event log of one machine, in SQLite."""
