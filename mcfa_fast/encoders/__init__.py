"""From media to what systems work on: class descriptors from sentences."""
