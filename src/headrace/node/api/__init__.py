"""The HTTP side: what a request line means, and how it is answered in the hub's shape."""
