"""What other download programs read: one module a program, pure text."""
