// What this device keeps: who is signed in and the questions that wait (IndexedDB), and the last good answers (Cache Storage).
// Used by the page and by the service worker.
"use strict";

const DAY = 86_400_000;
const KEPT = "answers";
const LIMITS = {
  // A question waits for less than the 7 days in which its Idempotency-Key finds its job (keep_results_seconds).
  waiting: { entries: 50, bytes: 200_000, milliseconds: 3 * DAY },
  kept: { entries: 100, bytes: 2_000_000 }, // their age: `keep_hours` of policy.json
};

let opened;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("travel-mode", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("waiting", { keyPath: "id" });
      request.result.createObjectStore("session", { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

// Runs `act(stores)` in one transaction; resolves to the result of the request that it returns.
async function transact(mode, act) {
  const transaction = (await database()).transaction(["waiting", "session"], mode);
  const request = act({ waiting: transaction.objectStore("waiting"), session: transaction.objectStore("session") });
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = () => reject(transaction.error ?? new Error("not stored"));
  });
}

// Who is signed in: {tenant, features}; or {leaving: true} after a sign-out without network; or undefined.
const session = () => transact("readonly", ({ session }) => session.get("session"));
const remember = (facts) => transact("readwrite", ({ session }) => session.put({ ...facts, id: "session" }));

const sizeOf = (value) => new TextEncoder().encode(JSON.stringify(value)).length;

// Adds a question to those that wait; false if there is no room, or if its tenant has signed out meanwhile.
async function addWaiting(question) {
  let added = false;
  await transact("readwrite", (stores) => {
    stores.session.get("session").onsuccess = ({ target: { result: who } }) => {
      stores.waiting.getAll().onsuccess = ({ target: { result: others } }) => {
        const all = [...others, question];
        const { entries, bytes } = LIMITS.waiting;
        added = who?.tenant === question.tenant && all.length <= entries && sizeOf(all) <= bytes;
        if (added) stores.waiting.add(question);
      };
    };
  });
  return added;
}

// Ids begin with the time, so the oldest comes first.
const allWaiting = () => transact("readonly", ({ waiting }) => waiting.getAll());
const oneWaiting = (id) => transact("readonly", ({ waiting }) => waiting.get(id));
const removeWaiting = (id) => transact("readwrite", ({ waiting }) => waiting.delete(id));
const isTooOld = (question) => Date.now() - question.asked_at > LIMITS.waiting.milliseconds;

// Case, blanks and Unicode's two ways to write an accent make no other question. Numbers and ids do.
const normalized = (text) => text.normalize("NFC").trim().replace(/\s+/g, " ").toLowerCase();

// The address of an answer in the cache; the tenant is part of it.
async function addressOf(tenant, feature, messages) {
  const texts = messages.map(({ role, content }) => [role, normalized(content)]);
  const facts = new TextEncoder().encode(JSON.stringify([tenant, feature, texts]));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", facts));
  return "/kept/" + Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// One at a time: a sign-out ends either before an answer is kept, which then is not, or after, and deletes it.
const alone = (act) => navigator.locks.request("kept answers", act);

// Keeps {tenant, feature, question, completion, kept_at, kept_until}; true if it is kept.
function keep(address, answer) {
  return alone(async () => {
    const who = await session();
    if (who?.tenant !== answer.tenant || sizeOf(answer) > LIMITS.kept.bytes) return false;
    const cache = await caches.open(KEPT);
    await cache.delete(address);
    await cache.put(address, new Response(JSON.stringify(answer)));
    await prune(cache, () => true);
    return true;
  });
}

async function keptAt(address) {
  const found = await caches.match(address, { cacheName: KEPT });
  const answer = await found?.json();
  return answer?.kept_until > Date.now() ? answer : undefined;
}

// The answers of the tenant, the newest first. Deletes those that are too old, too many, or of a feature that is private now.
function allKept({ tenant, features }) {
  const open = new Set(features.filter((feature) => !feature.private).map((feature) => feature.name));
  return alone(async () => prune(await caches.open(KEPT), (each) => each.tenant === tenant && open.has(each.feature)));
}

async function prune(cache, allowed) {
  const all = [];
  for (const request of await cache.keys()) {
    const answer = await (await cache.match(request)).json();
    all.push({ request, answer, bytes: sizeOf(answer) });
  }
  all.sort((one, other) => other.answer.kept_at - one.answer.kept_at);
  const left = [];
  let bytes = 0;
  for (const each of all) {
    bytes += each.bytes;
    const fits = left.length < LIMITS.kept.entries && bytes <= LIMITS.kept.bytes;
    if (fits && each.answer.kept_until > Date.now() && allowed(each.answer)) left.push(each.answer);
    else await cache.delete(each.request);
  }
  return left;
}

// Deletes all that a tenant has on this device.
async function wipe() {
  await transact("readwrite", ({ waiting, session }) => {
    waiting.clear();
    session.clear();
  });
  await alone(() => caches.delete(KEPT));
}
