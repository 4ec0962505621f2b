"""Where bytes come from: one contract, and the kinds of places that keep it."""
