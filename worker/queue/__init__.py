"""The queue: every transition of a job is one atomic Lua script."""
