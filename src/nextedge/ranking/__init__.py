"""Ranking: candidates to calibrated probabilities by one pipeline."""
