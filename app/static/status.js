/** Keeps the status page up to date while it is visible. */

import { bars, line } from "./chart.js";
import { element, show } from "./dom.js";
import { measured, number } from "./format.js";
import { Problem, call } from "./job.js";
import { apiKey, keyProblem, needsKey, onKeyChange } from "./key.js";
import { verdict } from "./verdict.js";

const EVERY_MS = 2000;
const NUM_KEPT = 90;
// As many as the status of a worker holds; several workers share them.
const NUM_BATCHES = 40;
const NUM_LATENCIES = 100;

// One, several, and what the numbers of a chart are of.
const UNITS = {
  queue: ["byte", "bytes", " in the queue"],
  throughput: ["byte/s", "bytes/s", ""],
  latency: ["ms", "ms", ""],
  batches: ["text", "texts", " in a micro-batch"],
};

const byId = (id) => document.getElementById(id);
const figures = byId("figures");
const history = { queue: [], throughput: [] };
let before = null;
let timer = null;
let isPaused = false;

async function refresh() {
  clearTimeout(timer);
  if (needsKey && apiKey() === "") return;
  try {
    const { body } = await call(figures.dataset.stats, {});
    if (isPaused) return;
    render(body);
    live(`Live. As of ${new Date().toLocaleTimeString()}.`);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const ofKey = keyProblem(error.body);
    const { title, detail } = ofKey ?? error.body;
    byId("problem").replaceChildren(element("p", {}, element("strong", {}, `${title}.`), ` ${detail}`));
    show(byId("problem"), true);
    show(byId("verdict"), false);
    document.body.classList.add("stale");
    if (ofKey) {
      // The same key would be refused again.
      live("Enter another API key.");
      return;
    }
    live(before ? `As of ${before.at.toLocaleTimeString()}. Trying again every ${EVERY_MS / 1000} s.` : "Trying again.");
  }
  schedule();
}

function schedule() {
  clearTimeout(timer);
  if (!document.hidden && !isPaused) timer = setTimeout(refresh, EVERY_MS);
}

const live = (sentence) => { byId("live").textContent = sentence; };

function render(stats) {
  show(byId("problem"), false);
  for (const section of document.querySelectorAll(".of-stats")) show(section, true);
  document.body.classList.remove("stale");
  for (const field of document.querySelectorAll("[data-field]")) {
    const value = field.dataset.field.split(".").reduce((from, name) => from?.[name], stats);
    const absent = field.closest(".totals") ? "0" : "–";
    field.textContent = value == null ? absent : measured(value);
  }
  judge(verdict(stats));
  remember(stats);
  charts(stats);
  byId("workers").replaceChildren(...stats.workers.map(row));
  show(byId("no-workers"), stats.workers.length === 0);
}

/** Keeps the history of queue and throughput since the page was opened; /stats has none. */
function remember(stats) {
  const at = new Date();
  const read = stats.workers.reduce((sum, worker) => sum + (worker.num_bytes ?? 0), 0);
  keep(history.queue, stats.queue.bytes);
  // A worker that restarts counts from 0.
  if (before) keep(history.throughput, Math.max(read - before.read, 0) / ((at - before.at) / 1000));
  before = { at, read };
}

function keep(values, value) {
  values.push(value);
  if (values.length > NUM_KEPT) values.shift();
}

/** Say the state in one line; a screen reader speaks it when it changes. */
function judge({ level, sentence }) {
  const line = byId("verdict");
  line.className = `state-line is-${level}`;
  if (line.textContent !== sentence) line.textContent = sentence;
  show(line, true);
}

function charts({ workers }) {
  draw("queue", line, history.queue);
  draw("throughput", line, history.throughput);
  drawByWorker("latency", workers.map((worker) => worker.recent_latencies_ms ?? []), NUM_LATENCIES);
  const texts = (worker) => (worker.recent_batches ?? []).map(([numTexts]) => numTexts);
  drawByWorker("batches", workers.map(texts), NUM_BATCHES);
}

/** Draw the newest values, worker after worker, with equal room for each: no worker hides another. */
function drawByWorker(key, lists, capacity) {
  const used = lists.filter((values) => values.length > 0);
  const each = Math.max(Math.floor(capacity / used.length), 1);
  const values = used.flatMap((list) => list.slice(-each));
  draw(key, bars, values, { capacity: Math.max(capacity, values.length), numWorkers: used.length });
}

/**
 * Draw a chart with its highest value beside it, and the latest one unless it is of several workers,
 * which have no common order; nothing while all values are 0.
 */
function draw(key, kind, values, { capacity, numWorkers = 1 } = {}) {
  const place = byId(`chart-${key}`);
  const highest = Math.max(...values, 0);
  for (const part of [place, byId(`below-${key}`)]) show(part, highest > 0);
  if (highest === 0) return;
  const [one, several, where] = UNITS[key];
  const [most, latest] = [highest, values.at(-1)].map((value) => {
    const figure = measured(value);
    return `${figure} ${figure === "1" ? one : several}`;
  });
  const [said, shown] = numWorkers > 1
    ? Array(2).fill(`${numWorkers} workers side by side`)
    : [`now ${latest}`, `latest ${latest}`];
  const words = `At most ${most}${where}, ${said}`;
  place.replaceChildren(
    kind(values, words, capacity),
    element("p", { class: "chart-numbers", "aria-hidden": "true" },
      element("span", {}, `most ${most}`), element("span", {}, shown)),
  );
}

function row(worker) {
  const figure = (value) => element("td", {}, value == null ? "–" : measured(value));
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, worker.name),
    element("td", {}, element("span", { class: `state state-${worker.state}` }, worker.state)),
    element("td", {}, worker.model?.name ?? "–"),
    figure(worker.bytes_per_s),
    figure(worker.num_batches),
    figure(worker.num_texts),
    figure(worker.mean_batch_texts),
    element("td", {}, worker.started_at ? new Date(worker.started_at).toLocaleString() : ""),
  );
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (!isPaused) refresh();
});
byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  if (isPaused) {
    clearTimeout(timer);
    live(`Paused at ${new Date().toLocaleTimeString()}.`);
  } else refresh();
});
onKeyChange(() => { if (!isPaused) refresh(); });
show(byId("pause"), true);
refresh();
