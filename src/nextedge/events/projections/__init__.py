"""Projections: what the overlay derives from the events beside its own state."""
