"""Reports on objectives: their state, the pages for clients, the month."""
