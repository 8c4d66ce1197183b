"""Address books, matched by keyed hashes."""
