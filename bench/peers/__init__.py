"""`make bench-peers`: failover-worker beside the queues that people would pick instead, and a bare loop as the floor."""
