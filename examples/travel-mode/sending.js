// Sends the questions that wait. Used by the page and, with Background Sync, by the service worker.
"use strict";

const AT_ONCE = 4;
const CHAT = "/v1/chat/completions";
const channel = new BroadcastChannel("travel-mode"); // every tab shows what another one, or the worker, has sent

// A question is sent with its id as Idempotency-Key as often as it takes: it is one job, and is paid once.
function requestOf(question) {
  return new Request(CHAT, {
    method: "POST",
    cache: question.private ? "no-store" : "default", // the service worker keeps nothing of a private one
    headers: {
      "Content-Type": "application/json",
      "Idempotency-Key": question.id,
      "x-failover-tenant": question.tenant,
      "x-failover-feature": question.feature,
    },
    body: JSON.stringify({ messages: [{ role: "user", content: question.text }] }),
  });
}

// What came of one try: `state` is answered, failed (it is over) or waits; `why` it waits, or got its answer from this device:
// offline, busy, working, or a code of server.py. `fromDevice`: when that answer was kept. `isKept`: a new one that is kept.
async function outcomeOf(response) {
  let body;
  try {
    body = await response.json();
  } catch {
    return { state: "waits", why: response.status < 500 ? "offline" : "busy" }; // the reply broke off, or a gateway's page
  }
  if (response.status === 200) {
    const keptAt = response.headers.get("x-travel-from-device");
    return {
      state: "answered",
      why: response.headers.get("x-travel-why"),
      text: body.choices?.[0]?.message?.content ?? "(an answer without text)",
      fromDevice: keptAt === null ? null : Number(keptAt),
      isKept: response.headers.has("x-travel-kept"),
    };
  }
  if (response.status === 202) return { state: "waits", why: "working" };
  const { code, message } = body.error ?? {};
  if ([401, 403].includes(response.status) || code === "offline") return { state: "waits", why: code };
  const isOver = response.headers.get("x-should-retry") === "false" && code !== "late";
  const isRefused = response.status < 500 && ![408, 429].includes(response.status);
  if (isOver || isRefused) return { state: "failed", text: message ?? `error ${response.status}` };
  return { state: "waits", why: "busy" };
}

// Sends one question, unless another tab sends it now or has its answer; undefined then.
function sendOne(question, send) {
  return navigator.locks.request(`question ${question.id}`, { ifAvailable: true }, async (lock) => {
    if (lock === null || !(await oneWaiting(question.id))) return undefined;
    if (isTooOld(question)) return { state: "failed", text: "It waited for more than 3 days, so it was not sent again." };
    try {
      return await outcomeOf(await send(requestOf(question)));
    } catch {
      return { state: "waits", why: "offline" };
    }
  });
}

// Sends all that wait, some at once, and hands each outcome to `report`. Without network it stops after the first ones.
async function sendAll(send, report) {
  const left = await allWaiting();
  const sender = async () => {
    for (let question; (question = left.shift()); ) {
      const outcome = await sendOne(question, send);
      if (outcome) await report(question, outcome);
      if (outcome?.why === "offline") left.length = 0;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, sender));
}
