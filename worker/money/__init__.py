"""What calls cost, the caps on it, rate limits, and the answer cache."""
