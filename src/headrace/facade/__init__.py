"""What Python programs call; the command line is a thin skin over it. One function a file, and what it gives back."""
