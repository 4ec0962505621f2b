"""Care of the disk: what is on it is read again, and mended."""
