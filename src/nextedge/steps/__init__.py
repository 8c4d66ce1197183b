"""The offline line, one file a step, in the order of ``run.py``."""
