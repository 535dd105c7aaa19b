"""Pauses and kill switches of operators, and how many jobs a worker may start."""
