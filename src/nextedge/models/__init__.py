"""Models: each is fitted into an immutable directory of arrays and a manifest."""
