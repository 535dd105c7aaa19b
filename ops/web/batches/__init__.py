"""OpenAI's files and batches over the durable queue: a file of up to 50,000 requests in, its answers out in the same order."""
