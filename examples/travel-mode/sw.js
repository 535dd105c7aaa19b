// The service worker: the page without network, network first for answers, and Background Sync.
"use strict";

importScripts("/device.js", "/sending.js");

const SHELL = "page";
const FILES = ["/", "/app.js", "/device.js", "/icon.svg", "/manifest.webmanifest", "/sending.js", "/style.css"];
const PATIENCE = { answer: 35_000, file: 4_000 }; // milliseconds; Wi-Fi that is connected and passes nothing counts as none

self.addEventListener("install", (event) => {
  const files = FILES.map((file) => new Request(file, { cache: "reload" }));
  event.waitUntil(caches.open(SHELL).then((cache) => cache.addAll(files)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (origin !== self.location.origin) return;
  if (request.method === "POST" && pathname === CHAT) event.respondWith(answer(request));
  if (request.method === "GET" && FILES.includes(pathname)) event.respondWith(file(request, pathname));
});

self.addEventListener("sync", (event) => {
  if (event.tag === "waiting") event.waitUntil(sendInBackground());
});

async function file(request, pathname) {
  const cache = await caches.open(SHELL);
  try {
    const response = await fetch(request, { signal: AbortSignal.timeout(PATIENCE.file) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    await cache.put(pathname, response.clone());
    return response;
  } catch {
    return (await cache.match(pathname)) ?? Response.error();
  }
}

// The network's answer; without one the last good answer of this device; without that an error with the code `offline`.
async function answer(request) {
  const question = await questionOf(request.clone());
  let response;
  try {
    const live = await fetch(request, { signal: AbortSignal.timeout(PATIENCE.answer) });
    if (!live.headers.get("content-type")?.includes("json")) throw new Error("the page of a Wi-Fi's sign-in, or of a gateway");
    response = new Response(await live.text(), { status: live.status, headers: live.headers }); // read whole: it may break off
  } catch {
    response = Response.json({ error: { code: "offline", message: "no network" } }, { status: 503 });
  }
  if (!question) return response;
  // A device whose storage is full or broken keeps nothing; the answer is shown all the same.
  if (response.status >= 500) return (await fromDevice(question, response).catch(() => undefined)) ?? response;
  if (response.status === 200 && (await keepAnswer(question, response.clone()).catch(() => false))) {
    response.headers.set("x-travel-kept", "1");
  }
  return response;
}

// What the answer would be kept under; undefined if this request says that nothing may be kept.
async function questionOf(request) {
  const tenant = request.headers.get("x-failover-tenant");
  const feature = request.headers.get("x-failover-feature");
  if (request.cache === "no-store" || !tenant || !feature) return undefined;
  const { messages } = await request.json().catch(() => ({}));
  if (!Array.isArray(messages) || !messages.every((message) => typeof message?.content === "string")) return undefined;
  return { tenant, feature, text: messages.at(-1)?.content, address: await addressOf(tenant, feature, messages) };
}

async function fromDevice({ address }, failed) {
  const kept = await keptAt(address);
  if (!kept) return undefined;
  const { error } = await failed.clone().json();
  const headers = { "x-travel-from-device": String(kept.kept_at), "x-travel-why": error?.code ?? "" };
  return Response.json(kept.completion, { headers });
}

// Keeps a good answer if the server allows it by `Cache-Control: max-age`. Whatever is not clear is not kept.
async function keepAnswer({ tenant, feature, text, address }, response) {
  const control = response.headers.get("cache-control") ?? "";
  const seconds = /(?:^|[\s,])no-store(?:$|[\s,])/.test(control) ? 0 : Number(/(?:^|[\s,])max-age=(\d+)/.exec(control)?.[1] ?? 0);
  const completion = await response.json().catch(() => undefined);
  const choice = completion?.choices?.[0];
  if (!seconds || choice?.finish_reason !== "stop" || !choice.message?.content) return false;
  const now = Date.now();
  return keep(address, { tenant, feature, question: text, completion, kept_at: now, kept_until: now + seconds * 1000 });
}

// Without a page nobody sees an answer that is not kept: its question stays, and the next page gets the answer of the same job.
async function sendInBackground() {
  let missed = false;
  await sendAll(answer, async (question, outcome) => {
    missed ||= outcome.state === "waits";
    if (outcome.isKept) await removeWaiting(question.id);
    channel.postMessage({ kind: "outcome", question, outcome });
  });
  if (missed) throw new Error("some questions wait"); // the browser tries again later
}
