"""A streamed chat completion: its text is printed as the provider writes it."""

import os

from openai import OpenAI

client = OpenAI(
    api_key=os.environ["FAILOVER_API_TOKEN"],
    base_url=os.environ.get("FAILOVER_URL", "http://localhost:8000/v1"),
)
stream = client.chat.completions.create(
    model="app/chat",
    messages=[{"role": "user", "content": "Write two sentences about Lisbon."}],
    stream=True,
    extra_headers={"x-failover-stream": "live"},  # without it: the whole answer once it is complete, never half of one
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
