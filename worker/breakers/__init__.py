"""The circuit breakers of all routes, and how routes stand."""
