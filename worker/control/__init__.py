"""What operators may stop, and how many jobs a worker may start."""
