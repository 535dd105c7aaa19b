"""The OpenAI-compatible surface: official SDKs with `base_url=.../v1` over the durable queue (docs/openai.md)."""
