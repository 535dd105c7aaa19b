// The SOP's Node router (step 4) as an app without a router: retries, circuit breakers, Hot, Warm and the Cold queue are behind
// `failover serve`. POST /ai answers as routeWithFailover did: a chat completion, or 202 if the job still waits after 20 s.
import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import OpenAI from "openai";

const client = new OpenAI({
  apiKey: process.env.FAILOVER_API_TOKEN,
  baseURL: process.env.FAILOVER_URL ?? "http://localhost:8000/v1",
});

export async function routeWithFailover({ idempotencyKey, ...body }) {
  const headers = { Prefer: "respond-async, wait=20", "Idempotency-Key": idempotencyKey };
  const asked = client.chat.completions.create({ model: "app/chat", ...body }, { headers });
  const { data, response } = await asked.withResponse();
  return Response.json(data, { status: response.status }); // 202 has {"id", "status": "queued", "status_url"}
}

const server = createServer(async (request, response) => {
  let answer;
  try {
    answer = await routeWithFailover(await json(request));
  } catch (error) {
    const status = error instanceof SyntaxError ? 400 : (error.status ?? 502);
    answer = Response.json({ error: error.error ?? { message: error.message } }, { status });
  }
  response.writeHead(answer.status, { "Content-Type": "application/json" }).end(await answer.text());
});
server.listen(process.env.PORT ?? 3000, () => console.log(`http://localhost:${server.address().port}/ai`));
