"""Planning by views: an agent explores rooms, its trajectories become a view graph, the graph becomes training data."""
