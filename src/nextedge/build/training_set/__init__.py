"""Labelled rows for the rankers: candidates of the label windows with features and labels."""
