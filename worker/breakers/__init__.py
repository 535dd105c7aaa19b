"""The circuit breakers of all routes, and the routes' health."""
