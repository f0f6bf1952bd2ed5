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

/** The job, or else the batch, of an ID. */
async function read(id) {
  for (const path of [form.dataset.jobs, form.dataset.batches]) {
    try {
      return (await call(`${path}/${id}`, {})).body;
    } catch (error) {
      if (!(error instanceof Problem && error.body.type === "job_not_found")) throw error;
    }
  }
  throw new Problem({
    type: "job_not_found",
    title: "Not found",
    detail: `No job or batch ${needsKey ? "of your key " : ""}has this ID; check it for typing errors.`,
    retryable: false,
  });
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
