"""The web process: intake, the budget's webhook, health and metrics, in one FastAPI app."""
