"""The same job in each peer: POST a chat body to the provider, keep the answer. Each file runs in the peers' environment."""
