"""The Anthropic Messages dialect: requests out (request, messages, schema, tool_names), answers in (answer)."""
