"""The Redis server behind REDIS_URL: its URL, its errors, its memory, and which server is the primary."""
