"""Performs the plan: lanes that receive, hashers that follow, one engine for pulls, fills and loads."""
