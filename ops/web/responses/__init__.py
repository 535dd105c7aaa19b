"""OpenAI's Responses API over the durable queue: a response is a job, which can be read, cancelled and streamed later."""
