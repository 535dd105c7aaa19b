"""What an answer of a provider means."""
