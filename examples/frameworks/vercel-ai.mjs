// Vercel's AI SDK over `failover serve`.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const failover = createOpenAICompatible({
  name: "failover",
  apiKey: process.env.FAILOVER_API_TOKEN,
  baseURL: process.env.FAILOVER_URL ?? "http://localhost:8000/v1",
  includeUsage: true,
});
const { text } = await generateText({ model: failover("app/chat"), prompt: "Ping" });
console.log(text);

const { textStream, usage } = streamText({ model: failover("app/chat"), prompt: "Write two sentences about Lisbon." });
for await (const piece of textStream) process.stdout.write(piece);
console.log(`\n${(await usage).totalTokens} tokens`);
