"""The OpenAI-compatible surface under faults and kills, with the official SDK as its client."""
