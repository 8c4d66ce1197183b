"""What the overlay folds events into beside its own state."""
