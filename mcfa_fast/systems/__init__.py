"""Zero-shot systems of the literature, each in a file of its own, and their registry."""

from mcfa_fast._extras import require

require("zsl", __name__)
