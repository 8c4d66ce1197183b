"""NextEdge recommends the next edge in a graph: people to people, and people to items."""
