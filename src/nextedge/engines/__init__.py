"""Where steps run: reading, writing and running table expressions; no recommendation logic."""
