// BullMQ on Node's own fetch. `node app.mjs enqueue N` fills the queue, `node app.mjs work` works.
import { Queue, Worker } from "bullmq";

const { hostname, port } = new URL(process.env.REDIS_URL);
const connection = { host: hostname, port: Number(port), maxRetriesPerRequest: null };
const concurrency = Number(process.env.CONCURRENCY);
const url = `${process.env.PROVIDER_URL}/v1/chat/completions`;
const content = (number) =>
  `Summarise call note ${number}: ` + "the client asked for a shorter report and an earlier call. ".repeat(6);
const body = (number) => ({
  model: "gpt-4o-mini",
  messages: [{ role: "user", content: content(number) }],
  max_tokens: 200,
});

if (process.argv[2] === "enqueue") {
  const queue = new Queue("bench", { connection });
  const jobs = Array.from({ length: Number(process.argv[3]) }, (_, number) => ({ name: "complete", data: body(number) }));
  await queue.addBulk(jobs);
  await queue.close();
} else {
  const complete = async (job) => {
    const headers = { "content-type": "application/json" };
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(job.data) });
    return await response.json();
  };
  new Worker("bench", complete, { connection, concurrency });
}
