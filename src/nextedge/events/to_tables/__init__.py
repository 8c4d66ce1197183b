"""Events as rows of the input tables of the next build."""
