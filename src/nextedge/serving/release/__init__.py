"""A loaded release: its surfaces, the live edges in its graphs, and what events change of it."""
