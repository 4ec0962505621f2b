"""Content on its way out: verified files and unfinished ones, and how they are sent."""
