"""The pages for people: what happens now, jobs, dead letters, review, incidents, money, objectives and settings."""
