"""A chat completion with OpenAI's SDK. Retries, failover between providers and the queue are behind `failover serve`."""

import os

from openai import OpenAI

client = OpenAI(
    api_key=os.environ["FAILOVER_API_TOKEN"],
    base_url=os.environ.get("FAILOVER_URL", "http://localhost:8000/v1"),
)
resp = client.chat.completions.create(model="app/chat", messages=[{"role": "user", "content": "Ping"}])
print(resp.choices[0].message.content)
