"""Benchmarks of one worker alone: its start, and its memory with many jobs in flight."""
