"""Rankers: learners of the probability of an edge, and how one is chosen."""
