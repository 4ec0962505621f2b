"""Content on its way: fills, and the worker process whose engine brings them."""
