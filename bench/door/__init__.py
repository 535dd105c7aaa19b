"""`make bench-door`: what the OpenAI-compatible surface costs, beside LiteLLM's proxy."""
