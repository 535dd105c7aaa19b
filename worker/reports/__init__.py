"""Reports about the queue and the money, for people and programs."""
