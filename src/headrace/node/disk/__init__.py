"""Care of the disk: what stays, what goes and how much there may be; and what is there is read again, and mended."""
