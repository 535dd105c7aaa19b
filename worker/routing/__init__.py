"""Which route takes a job, in which order, and what came of it."""
