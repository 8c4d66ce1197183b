"""Policy: the ordered rules after ranking, and reasons."""
