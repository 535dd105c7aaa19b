// A streamed chat completion: its text is printed as the provider writes it.
import OpenAI from "openai";

const client = new OpenAI({
  apiKey: process.env.FAILOVER_API_TOKEN,
  baseURL: process.env.FAILOVER_URL ?? "http://localhost:8000/v1",
});
const stream = await client.chat.completions.create(
  { model: "app/chat", messages: [{ role: "user", content: "Write two sentences about Lisbon." }], stream: true },
  { headers: { "x-failover-stream": "live" } }, // without it: the whole answer once it is complete, never half of one
);
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? "");
console.log();
