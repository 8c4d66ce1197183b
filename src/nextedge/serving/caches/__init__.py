"""Caches of requests: ranked lists, precomputed candidates, and their invalidation."""
