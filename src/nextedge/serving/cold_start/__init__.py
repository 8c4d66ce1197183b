"""Candidates of users without an edge in the release."""
