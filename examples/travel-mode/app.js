// The page: signs in, asks, shows. All that people and providers wrote is shown as text.
"use strict";

const PAUSES = { first: 2_000, longest: 60_000 }; // milliseconds between tries while questions wait
const SHOWN = 20; // kept answers that are shown at the start
const $ = (id) => document.getElementById(id);

let who; // {tenant, features} of the person who is signed in
let isOffline = !navigator.onLine;
let hasBeenOffline = isOffline;
let pause = PAUSES.first;
let timer;

const many = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function ageOf(since) {
  const minutes = Math.max(0, Math.floor((Date.now() - since) / 60_000));
  if (minutes < 1) return "less than a minute old";
  if (minutes < 120) return `${many(minutes, "minute")} old`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} hours old` : `${Math.floor(minutes / 1440)} days old`;
}

async function showBanner() {
  const count = who ? (await allWaiting()).length : 0;
  const wait = `${many(count, "question")} ${count === 1 ? "waits" : "wait"}`;
  let text = "";
  if (isOffline) text = count ? `Offline. ${wait}, and will be sent when the network is back.` : "Offline. You can go on asking.";
  else if (count) text = hasBeenOffline ? `Back online. ${wait} for an answer.` : `${wait} for an answer.`;
  else if (hasBeenOffline) text = "Back online. Nothing waits any more.";
  if ($("banner").textContent !== text) $("banner").textContent = text;
  $("banner").className = isOffline ? "offline" : "online";
}

function itemOf(question) {
  const known = $(`q-${question.id}`);
  if (known) return known;
  const item = document.createElement("li");
  item.id = `q-${question.id}`;
  for (const name of ["question", "answer", "note"]) {
    const line = document.createElement("p");
    line.className = name;
    item.append(line);
  }
  item.querySelector(".question").textContent = question.text;
  $("list").prepend(item);
  return item;
}

function show(question, text, note, state) {
  const item = itemOf(question);
  item.dataset.state = state;
  item.querySelector(".answer").textContent = text;
  item.querySelector(".note").textContent = note;
  return item;
}

function showWaiting(question) {
  const item = show(question, "", "Waits for an answer. ", "waits");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Remove";
  button.addEventListener("click", async () => {
    await removeWaiting(question.id);
    channel.postMessage({ kind: "removed", id: question.id });
    item.remove();
    await showBanner();
  });
  item.querySelector(".note").append(button);
}

const showKept = (answer, index) =>
  show(
    { id: `kept-${index}`, text: answer.question },
    answer.completion.choices[0].message.content,
    `From this device, ${ageOf(answer.kept_at)}.`,
    "kept",
  );

// Shows what came of a question. A question that is over leaves the device once its answer is on the page.
async function showOutcome(question, outcome) {
  if (question.tenant !== who?.tenant) return;
  isOffline = outcome.why === "offline";
  hasBeenOffline ||= isOffline;
  if (outcome.state === "waits") {
    if (outcome.why === "working") pause = PAUSES.first;
    if (["signed_out", "other_tenant"].includes(outcome.why)) await begin();
  } else {
    if (outcome.state === "failed") show(question, outcome.text, "Not answered.", "failed");
    else if (outcome.fromDevice === null) show(question, outcome.text, "", "answered");
    else show(question, outcome.text, `From this device, ${ageOf(outcome.fromDevice)}: no newer answer can be had now.`, "kept");
    await removeWaiting(question.id);
  }
  await showBanner();
}

async function report(question, outcome) {
  await showOutcome(question, outcome);
  channel.postMessage({ kind: "outcome", question, outcome });
}

const send = (request) => fetch(request);

// Wi-Fi that is connected but passes nothing sends no event when that ends, so the page looks by itself.
const isReachable = () => fetch("/session", { signal: AbortSignal.timeout(5_000) }).then(() => true, () => false);

async function sendWaiting() {
  clearTimeout(timer);
  if (!who) return;
  if (isOffline) isOffline = !(await isReachable());
  if (!isOffline) await sendAll(send, report);
  await showBanner();
  await sendLater();
}

async function sendLater() {
  clearTimeout(timer);
  if (!who || (!isOffline && !(await allWaiting()).length)) return;
  timer = setTimeout(sendWaiting, pause);
  pause = Math.min(pause * 2, PAUSES.longest);
}

async function inBackground() {
  const registration = await navigator.serviceWorker?.getRegistration();
  await registration?.sync?.register("waiting").catch(() => {}); // a browser without it sends from the page
}

async function ask(event) {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  const question = {
    id: `${Date.now()}-${crypto.randomUUID()}`,
    tenant: who.tenant,
    feature: $("feature").value,
    text,
    private: $("private").checked,
    asked_at: Date.now(),
  };
  $("text").value = ""; // at once: a double click asks once
  hasBeenOffline = isOffline;
  const { entries, bytes } = LIMITS.waiting;
  let problem = `at most ${entries} questions, or ${bytes / 1000} kB, can wait on this device`;
  const added = await addWaiting(question).catch((error) => {
    problem = `the storage of this browser is full or off (${error.name})`;
  });
  $("ask-problem").textContent = added ? "" : `Not stored: ${problem}.`;
  if (!added) {
    $("text").value ||= text;
    return;
  }
  showWaiting(question);
  channel.postMessage({ kind: "asked", question });
  const outcome = await sendOne(question, send);
  if (outcome) await report(question, outcome);
  if (!outcome || outcome.state === "waits") await inBackground();
  pause = PAUSES.first;
  await sendLater();
}

async function signIn(event) {
  event.preventDefault();
  let response;
  try {
    response = await fetch("/sign-in", { method: "POST", headers: { "x-access-code": encodeURIComponent($("code").value) } });
  } catch {
    $("sign-in-problem").textContent = "To sign in, you need the network.";
    return;
  }
  $("sign-in-problem").textContent = response.ok ? "" : "This access code is not known.";
  if (!response.ok) return;
  $("code").value = "";
  await enter(await response.json());
}

async function signOut() {
  const count = (await allWaiting()).length;
  if (count && !confirm(`${many(count, "question")} not answered yet will be deleted. Sign out?`)) return;
  hide();
  await wipe();
  await remember({ leaving: true });
  channel.postMessage({ kind: "signed out" });
  await endSession();
  showSignIn();
}

// The device has forgotten all; the cookie is deleted now, or when there is network.
async function endSession() {
  const response = await fetch("/sign-out", { method: "POST", signal: AbortSignal.timeout(5_000) }).catch(() => undefined);
  if (response?.ok) await wipe();
}

function hide() {
  who = undefined;
  $("list").replaceChildren();
  for (const id of ["who", "ask", "answers", "sign-in"]) $(id).hidden = true;
}

function showSignIn() {
  hide();
  $("sign-in").hidden = false;
}

// The page of a person who is signed in. What another tenant left on the device is deleted first.
async function enter(facts) {
  const before = await session();
  if (before && before.tenant !== facts.tenant) await wipe();
  await remember(facts);
  who = facts;
  channel.postMessage({ kind: "entered", tenant: who.tenant });
  $("tenant").textContent = facts.tenant;
  $("feature").replaceChildren(...facts.features.map(({ name, label, private: isPrivate }) => {
    return new Option(isPrivate ? `${label} (private)` : label, name);
  }));
  showPrivate();
  $("sign-in").hidden = true;
  for (const id of ["who", "ask", "answers"]) $(id).hidden = false;
  $("list").replaceChildren();
  const waiting = await allWaiting();
  (await allKept(facts)).slice(0, SHOWN).reverse().forEach(showKept);
  waiting.forEach(showWaiting);
  await showBanner();
  await sendWaiting();
}

function showPrivate() {
  const feature = who.features.find(({ name }) => name === $("feature").value);
  $("private").checked = feature.private;
  $("private").disabled = feature.private; // the policy has decided
}

async function begin() {
  hide();
  const before = await session();
  if (before?.leaving) await endSession();
  const response = await fetch("/session", { signal: AbortSignal.timeout(5_000) }).catch(() => undefined);
  if (response?.ok && !before?.leaving) return enter(await response.json());
  const isUnreachable = !response || response.status >= 500;
  isOffline = isUnreachable;
  hasBeenOffline ||= isOffline;
  if (isUnreachable && before?.tenant) return enter(before);
  showSignIn();
  return showBanner();
}

channel.addEventListener("message", async ({ data }) => {
  if (data.kind === "signed out") showSignIn();
  if (data.kind === "entered" && who && who.tenant !== data.tenant) await begin();
  if (data.kind === "removed") $(`q-${data.id}`)?.remove();
  if (data.kind === "asked" && data.question.tenant === who?.tenant) showWaiting(data.question);
  if (data.kind === "outcome") await showOutcome(data.question, data.outcome);
  await showBanner();
});

addEventListener("online", async () => {
  isOffline = false;
  pause = PAUSES.first;
  await showBanner();
  await (who ? sendWaiting() : begin());
});
addEventListener("offline", async () => {
  isOffline = hasBeenOffline = true;
  await showBanner();
});
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && sendWaiting());
$("ask").addEventListener("submit", ask);
$("sign-in").addEventListener("submit", signIn);
$("sign-out").addEventListener("click", signOut);
$("feature").addEventListener("change", showPrivate);

if (isSecureContext && "serviceWorker" in navigator) {
  navigator.serviceWorker.register("/sw.js");
  navigator.storage?.persist?.();
  begin();
} else {
  $("banner").textContent = "Travel mode needs https (or localhost) and a browser with service workers.";
}
