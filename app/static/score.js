/** Runs the page that scores texts: sends the editors' texts and shows their scores. */

import { element, show } from "./dom.js";
import { Editor, acceptDrops } from "./editor.js";
import { EXAMPLES } from "./examples.js";
import { count } from "./format.js";
import { Problem, call, scoreItems } from "./job.js";
import { askForKey, keyProblem } from "./key.js";
import { announcement, column, legend, summary } from "./results.js";
import { ScoredText } from "./scores.js";

const byId = (id) => document.getElementById(id);
const form = byId("form");
const routes = form.dataset;
const options = { maxBytes: Number(routes.maxTextBytes), onChange: () => show(byId("problem"), false) };
const [first, second] = [...form.querySelectorAll(".editor")].map((root) => new Editor(root, options));

/** Cancels the running job; null if none runs. */
let running = null;

const isComparing = () => !second.root.hidden;
const editors = () => (isComparing() ? [first, second] : [first]);

async function score() {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  const texts = editors().map((editor, index) => ({ name: nameOf(index), bytes: editor.bytes }));
  const items = editors().map((editor) => editor.item);
  const clock = startClock();
  show(byId("problem"), false);
  setBusy(true);
  try {
    const onProgress = (state) => { if (running === mine) clock.tell(state); };
    const result = await scoreItems(items, routes, { signal: mine.signal, onProgress });
    if (running === mine) showResult(texts, result);
  } catch (error) {
    if (running === mine) showFailure(error);
  } finally {
    clock.stop();
    if (running === mine) {
      running = null;
      setBusy(false);
    }
  }
}

const nameOf = (index) => (isComparing() ? ["First text", "Second text"][index] : "Text");

function showResult(texts, result) {
  const failed = result.items.findIndex((item) => item.error);
  if (failed >= 0) throw new Problem({ ...result.items[failed].error, errors: [{ pointer: `/items/${failed}` }] });
  const scored = texts.map(({ name, bytes }, index) => new ScoredText(name, bytes, result.items[index].result));
  byId("summary").replaceChildren(...summary(scored, result));
  byId("columns").replaceChildren(...scored.map((text) => column(text, scored.length > 1)));
  byId("columns").classList.toggle("two", scored.length > 1);
  byId("progress").textContent = "";
  byId("progress").append(element("span", { class: "visually-hidden" }, announcement(scored)));
  show(byId("results"), true);
  showModel(result.model);
  byId("results-name").focus({ preventScroll: true });
  byId("results").scrollIntoView({ block: "start", behavior: isStill() ? "auto" : "smooth" });
}

const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function showFailure(error) {
  byId("progress").textContent = error.name === "AbortError" ? "Cancelled. The service has erased the text." : "";
  if (error.name === "AbortError") return;
  if (!(error instanceof Problem)) throw error;
  const { request_id: requestId, type } = error.body;
  const ofKey = keyProblem(error.body);
  const { title, detail } = ofKey ?? error.body;
  byId("problem").replaceChildren(
    element("p", {}, element("strong", {}, title, "."), " ", detail),
    element("p", { class: "small" }, `Code ${type}`, requestId ? `, request ${requestId}` : ""),
  );
  show(byId("problem"), true);
  if (ofKey && type !== "quota_exceeded") askForKey(ofKey);
  else editorOf(error.body)?.field.focus();
}

/** The editor whose text a problem is about. */
function editorOf({ errors = [] }) {
  const index = /^\/items\/(\d)/.exec(errors[0]?.pointer ?? "")?.[1];
  return index === undefined ? null : editors()[Number(index)];
}

/** Shows the elapsed time once a second, and what the job waits for. */
function startClock() {
  const began = Date.now();
  let state = { phase: "SENDING" };
  const elapsed = () => Math.round((Date.now() - began) / 1000);
  const hurry = () => state.hurry();
  const render = () => byId("progress").replaceChildren(...progress({ ...state, hurry }, elapsed()));
  const timer = setInterval(() => { if (state.phase !== "RETRYING") render(); }, 1000);
  render();
  return {
    tell(now) {
      const isSameProblem = now.phase === "RETRYING" && now.problem.body.detail === state.problem?.body.detail;
      state = now;
      // The button must stay: it may have the focus, or be pressed just now.
      if (isSameProblem) byId("seconds-left").textContent = `${now.left} s`;
      else render();
    },
    stop: () => clearInterval(timer),
  };
}

function progress({ phase, hint, problem, left, hurry }, elapsedS) {
  if (phase === "RETRYING") {
    const again = element("button", { type: "button", class: "link", onclick: hurry }, "Try now");
    const { title, detail } = keyProblem(problem.body) ?? problem.body;
    return [element("strong", {}, `${title}.`), ` ${detail} Trying again in `,
      silent(`${left} s`, { id: "seconds-left" }), ". ", again];
  }
  const words = { SENDING: "Sending", QUEUED: "Waiting for its turn", STARTED: "Being scored" };
  const since = elapsedS > 0 ? silent(`, ${elapsedS} s`) : "";
  return [element("span", { class: "spinner", "aria-hidden": "true" }), words[phase] ?? phase, since, hint ? `. ${hint}` : "…"];
}

/** Hides text that changes every second from screen readers. */
const silent = (text, attributes = {}) => element("span", { "aria-hidden": "true", ...attributes }, text);

function setBusy(isBusy) {
  show(byId("cancel"), isBusy);
  form.setAttribute("aria-busy", String(isBusy));
  byId("score").textContent = isBusy ? "Score again" : "Score";
  if (!isBusy && document.activeElement === byId("cancel")) byId("score").focus();
}

function showModel(model) {
  const words = model === null
    ? ["No worker is ready yet. Texts wait until one is."]
    : [element("strong", {}, model.is_demo ? "Demo model" : model.name), model.is_demo
      ? ": a small bundled model that shows how the service works. A large model gives better scores."
      : ` · revision ${model.revision}, ${model.quantization === "none" ? model.dtype : model.quantization}`];
  byId("model").replaceChildren(...words);
  byId("model").classList.toggle("demo", model?.is_demo ?? true);
  show(byId("model"), true);
}

function compare(isWanted) {
  show(second.root, isWanted);
  byId("editors").classList.toggle("two", isWanted);
  byId("compare").setAttribute("aria-expanded", String(isWanted));
  byId("compare").textContent = isWanted ? "One text only" : "Compare with a second text";
  form.querySelector("label[for=text-a]").textContent = isWanted ? "First text" : "Text";
}

function fill(texts) {
  compare(texts.length > 1);
  texts.forEach((text, index) => {
    if (typeof text === "string") editors()[index].setText(text);
    else editors()[index].setBytes(text, `Example of ${count(text.length, "byte")}`);
  });
  score();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  score();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    score();
  }
});
byId("cancel").addEventListener("click", () => running?.abort());
byId("compare").addEventListener("click", () => {
  compare(!isComparing());
  if (isComparing()) second.field.focus();
});
byId("examples").addEventListener("click", ({ target }) => {
  if (target.dataset.example) fill(EXAMPLES[target.dataset.example]);
});
// A reader who leaves the page does not need the scores.
addEventListener("pagehide", () => running?.abort());
acceptDrops([first, second]);
byId("legend").replaceChildren(...legend());
call(routes.info, {}).then(({ body }) => showModel(body.model), () => {});
