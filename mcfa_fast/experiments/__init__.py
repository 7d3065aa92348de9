"""Whole experiments: one run, comparisons of systems, and sweeps over options."""

from mcfa_fast._extras import require

require("zsl", __name__)
