"""routes.json: its schema, the routes that can be called, their keys, parameters and prices."""
