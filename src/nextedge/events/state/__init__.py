"""Live state folded from events: the overlay and its checkpoints."""
