/** Judges the state of the service in one line. */

import { count, duration, number } from "./format.js";

/** {level: good | warn | bad, sentence} for an answer of `/stats`. */
export function verdict({ queue, workers, batches }) {
  const working = workers.filter(({ state }) => state === "ready" || state === "busy");
  const starting = workers.filter(({ state }) => state === "starting");
  const unstored = Math.max(...workers.map((worker) => worker.unstored_s ?? 0), 0);
  if (unstored > 0) return bad(`Redis has refused results for ${duration(unstored * 1000)}. See the log of the worker.`);
  if (isFull(queue, batches)) return bad("The queue is full. New texts are refused until some are scored.");
  if (working.length > 0) return good(`${count(working.length, "worker")} ${working.length === 1 ? "is" : "are"} ready. ${waiting(queue, batches)}`);
  if (starting.length > 0) return warn(`No worker is ready yet. ${beginning(starting[0])} ${waiting(queue, batches)}`);
  return bad(`No worker is running. ${waiting(queue, batches)}`);
}

const isFull = (queue, batches) =>
  queue.jobs >= queue.max_jobs || queue.bytes >= queue.max_bytes || batches.bytes >= batches.max_bytes;

function waiting({ jobs }, { lines }) {
  if (jobs + lines === 0) return "No text is waiting.";
  return `${count(jobs, "job")} and ${count(lines, "line")} of batches have no scores yet.`;
}

function beginning({ startup }) {
  if (!startup?.phase) return "One is starting.";
  const seconds = Object.values(startup.seconds).reduce((sum, each) => sum + each, 0);
  return `One is starting: ${startup.phase.replace("_", " ")}, ${number(seconds)} s so far.`;
}

const good = (sentence) => ({ level: "good", sentence });
const warn = (sentence) => ({ level: "warn", sentence });
const bad = (sentence) => ({ level: "bad", sentence });
