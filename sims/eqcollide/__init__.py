"""EqCollide-style simulator (after arXiv 2506.05797, whose code was not available): equivariant, collision-aware."""
