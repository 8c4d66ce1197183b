"""Engines read tables, run table expressions and write; no recommendation logic."""
