"""Ranked lists and impressions of the evaluation window."""
