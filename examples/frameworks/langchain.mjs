// LangChain over `failover serve`.
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const model = new ChatOpenAI({
  model: "app/chat",
  apiKey: process.env.FAILOVER_API_TOKEN,
  configuration: { baseURL: process.env.FAILOVER_URL ?? "http://localhost:8000/v1" },
});
console.log((await model.invoke("Ping")).content);

for await (const chunk of await model.stream("Write two sentences about Lisbon.")) process.stdout.write(chunk.content);
console.log();

const Call = z.object({ client: z.string(), urgent: z.boolean() });
console.log(await model.withStructuredOutput(Call, { method: "jsonSchema" }).invoke("Harbor Dental called."));
