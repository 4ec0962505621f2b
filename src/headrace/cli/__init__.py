"""The command line: each command parses, builds values, makes one public call and shows what came of it.

Talk goes to standard error, data to standard output; nothing else in the package prints.
"""
