"""The Redis and the worker of a command on one machine."""
