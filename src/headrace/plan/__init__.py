"""Decisions, without I/O: facts and the time go in, orders come out.

Nothing here reads a clock, opens a socket or a file, starts a thread or rolls a die; time and chance are
arguments. So every decision can be replayed and tested by the million.
"""
