"""Releases: immutable directories, their manifest, promotion and rollback."""
