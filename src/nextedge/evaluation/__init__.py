"""Measures of recommendations: ranking, candidates, classification, beyond accuracy."""
