"""Zero-shot systems of the literature, each in a file of its own, and their registry."""
