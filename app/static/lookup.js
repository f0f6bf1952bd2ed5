/** Looks up a job or a batch by its ID. */

import { element } from "./dom.js";
import { duration, number } from "./format.js";
import { Problem, call } from "./job.js";
import { keyProblem, needsKey } from "./key.js";

const form = document.getElementById("lookup");
const found = document.getElementById("found");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  lookUp(document.getElementById("id").value.trim());
});

async function lookUp(id) {
  if (id === "") return;
  found.textContent = "Looking…";
  try {
    found.replaceChildren(facts(await read(encodeURIComponent(id))));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const { title, detail } = keyProblem(error.body) ?? error.body;
    found.replaceChildren(element("p", { class: "notice" }, element("strong", {}, `${title}.`), ` ${detail}`));
  }
}

/** The job, or else the batch, of an ID; a key with one of both scopes finds what it may read. */
async function read(id) {
  const refusals = [];
  for (const path of [form.dataset.jobs, form.dataset.batches]) {
    try {
      return (await call(`${path}/${id}`, {})).body;
    } catch (error) {
      if (!(error instanceof Problem && ["job_not_found", "forbidden"].includes(error.body.type))) throw error;
      if (error.body.type === "forbidden") refusals.push(error);
    }
  }
  if (refusals.length === 2) throw refusals[0];
  throw new Problem({ type: "job_not_found", title: "Not found", detail: absence(refusals[0]?.body.scope), retryable: false });
}

/** Where the ID was not found; `scope` is the one that the key lacks. */
function absence(scope) {
  const of = needsKey ? "of your key " : "";
  if (!scope) return `No job or batch ${of}has this ID; check it for typing errors.`;
  const [read, unread] = scope === "bulk" ? ["job", "batches"] : ["batch", "jobs"];
  return `No ${read} ${of}has this ID. The key may not read ${unread}: it lacks the scope “${scope}”.`;
}

function facts(body) {
  const ended = body.finished_at ?? body.completed_at;
  const counts = body.request_counts;
  const rows = [
    ["State", body.state ?? body.status],
    ["Submitted", at(body.submitted_at ?? body.created_at)],
    ["Ended", ended ? `${at(ended)}, after ${duration(new Date(ended) - new Date(body.submitted_at ?? body.created_at))}` : "not yet"],
    counts
      ? ["Lines", `${number(counts.completed)} scored, ${number(counts.failed)} failed of ${number(counts.total)}`]
      : ["Texts", number(body.num_texts)],
    ["Bytes", number(body.num_bytes)],
    ["Error", body.error ? `${body.error.title}. ${body.error.detail}` : null],
  ];
  return element("dl", { class: "facts" }, ...rows.filter(([, value]) => value != null).flatMap(([name, value]) =>
    [element("dt", {}, name), element("dd", {}, value)]));
}

const at = (time) => new Date(time).toLocaleString();
