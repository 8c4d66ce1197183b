"""Indexes whose shards lie in other processes: those processes, and who asks them."""
