"""Candidate retrieval: one source a file, and how their candidates are merged."""
