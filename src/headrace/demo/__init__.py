"""`headrace demo`: the whole road once, on a real model, with figures measured while you watch."""
