"""The online line: one loaded release answers requests from live state."""
