// An answer that fits a schema, whichever provider gives it: routes that cannot do it are left out.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({
  apiKey: process.env.FAILOVER_API_TOKEN,
  baseURL: process.env.FAILOVER_URL ?? "http://localhost:8000/v1",
});
const Call = z.object({ client: z.string(), next_step: z.string(), urgent: z.boolean() });
const completion = await client.chat.completions.parse({
  model: "app/chat",
  messages: [{ role: "user", content: "Harbor Dental called: they need the draft by Thursday." }],
  response_format: zodResponseFormat(Call, "call"),
});
console.log(completion.choices[0].message.parsed);
