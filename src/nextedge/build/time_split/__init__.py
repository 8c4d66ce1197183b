"""Windows of history: what each one may see, and which edges are its labels."""
