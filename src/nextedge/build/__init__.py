"""The offline line: one step a file, in the order of ``run.py``."""
