"""The queue: every transition of a job, as one atomic script each."""
