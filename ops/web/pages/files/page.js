// What the pages do in the browser; without it they still can be read, and every act is a page of its own.
"use strict";

const clock = new Intl.DateTimeFormat(undefined, {hour: "2-digit", minute: "2-digit"});
const day = new Intl.DateTimeFormat(undefined, {month: "short", day: "numeric"});

function ago(seconds) {
  const past = Math.abs(seconds);
  const text = past < 90 ? `${Math.round(past)} s` : past < 5400 ? `${Math.round(past / 60)} min`
    : past < 172800 ? `${Math.round(past / 3600)} h` : `${Math.round(past / 86400)} days`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

// For a reader in UTC it is said once.
const inUtc = (at) => at.getTimezoneOffset() === 0 ? " UTC" : ` (${at.toISOString().slice(11, 16)} UTC)`;

// Every time is written in UTC by the server: beside it goes the reader's own, and how long ago it is.
function tellTimes() {
  for (const each of document.querySelectorAll("time[datetime]")) {
    const at = new Date(each.dateTime);
    each.dataset.utc ??= each.textContent;
    const seconds = (Date.now() - at) / 1000;
    const own = (Math.abs(seconds) > 43200 ? day.format(at) + ", " : "") + clock.format(at);
    const text = each.closest(".age") ? ago(seconds) : `${own}${inUtc(at)}, ${ago(seconds)}`;
    if (each.textContent !== text) each.textContent = text;
    each.title = each.dataset.utc;
  }
}

// On a phone each row of a table is a card: its cells need the words of the table's head.
function writeHeads() {
  for (const table of document.querySelectorAll(".wide table:not(.cards)")) {
    const heads = [...table.querySelectorAll("thead th")].map((each) => each.querySelector(".unseen") ? "" : each.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.children].forEach((cell, index) => { if (cell.tagName === "TD") cell.dataset.head = heads[index] ?? ""; });
    }
    table.classList.add("cards");
  }
}

const dialog = document.getElementById("dialog");

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target?.id === "act") {
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("input:not([type=hidden]), textarea, select, .button")?.focus();
  }
  tellTimes();
  writeHeads();
});
document.addEventListener("htmx:sseMessage", () => { tellTimes(); writeHeads(); });
document.addEventListener("htmx:sendError", () => {
  document.getElementById("act").textContent = "There is no connection. Nothing was done; try again.";
  if (!dialog.open) dialog.showModal();
});
dialog.addEventListener("close", () => {
  const done = dialog.querySelector("[data-done]");
  document.getElementById("act").replaceChildren();
  if (done && !document.getElementById("live")) location.reload();
});

const live = document.getElementById("live");
if (live) {
  document.addEventListener("htmx:sseOpen", () => { live.textContent = "Live: it changes by itself."; });
  document.addEventListener("htmx:sseError", () => { live.textContent = "The connection is lost; trying again. What you see may be old."; });
}

document.addEventListener("click", async (event) => {
  const from = event.target.dataset?.copy && document.getElementById(event.target.dataset.copy);
  if (!from) return;
  from.select();
  try {
    await navigator.clipboard.writeText(from.value);
  } catch {
    document.execCommand("copy");
  }
  const said = event.target.parentElement.querySelector(".said");
  if (said) said.textContent = "Copied.";
});

document.addEventListener("change", (event) => {
  if (!("all" in (event.target.dataset ?? {}))) return;
  for (const box of event.target.form.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
});

function draw(element) {
  const {unit, names, data} = JSON.parse(element.dataset.plot);
  const style = getComputedStyle(document.documentElement);
  const colors = ["--link", "--bad", "--watch"];
  const now = (name) => () => style.getPropertyValue(name).trim(); // asked for at each draw: the phone may go dark meanwhile
  const line = {stroke: now("--soft"), grid: {stroke: now("--line"), width: 1}};
  const series = names.map((name, index) => ({label: `${name} (${unit})`, stroke: now(colors[index % 3]), width: 2,
    dash: index ? [6, 3 * index] : undefined, points: {show: data[index + 1].filter((value) => value !== null).length < 40}, spanGaps: false}));
  const size = () => ({width: element.clientWidth, height: Math.min(240, Math.max(160, element.clientWidth / 3))});
  const plot = new uPlot({...size(), series: [{}, ...series], axes: [line, {...line, size: 60}], scales: {y: {range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1]}}}, data, element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw(false, true));
  new ResizeObserver(() => plot.setSize(size())).observe(element);
}

if (globalThis.uPlot) for (const each of document.querySelectorAll("[data-plot]")) draw(each);
tellTimes();
writeHeads();
setInterval(tellTimes, 1000);
