"""Care of the disk: what stays, what goes, and how much there may be."""
