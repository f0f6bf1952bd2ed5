/** Runs the page that scores texts: sends the editors' texts and shows their scores. */

import { element, show } from "./dom.js";
import { Editor, acceptDrops } from "./editor.js";
import { EXAMPLES } from "./examples.js";
import { count } from "./format.js";
import { Cancelled, LEAVING, Problem, call, scoreItems } from "./job.js";
import { apiKey, askForKey, keyProblem, needsKey } from "./key.js";
import { keep, takeKept, takeLinked } from "./keeping.js";
import { announcement, summary } from "./results.js";
import { ScoredText } from "./scores.js";
import { showTexts, startShowing } from "./shown.js";

const NUM_NEXT = 10;
/** A pause in typing after which the text is scored, with the option on. */
const TYPING_PAUSE_MS = 400;

const byId = (id) => document.getElementById(id);
const form = byId("form");
const routes = form.dataset;
/** The windows in which a text over the model's context is scored; Infinity before they are known. */
let windows = { size: Infinity, stride: Infinity };
let typing = null;
const limits = { maxBytes: Number(routes.maxWindowedBytes), onChange: () => edited() };
const [first, second] = [...form.querySelectorAll(".editor")].map((root) => new Editor(root, limits));

/** Cancels the running job; null if none runs. */
let running = null;

const isComparing = () => !second.root.hidden;
const editors = () => (isComparing() ? [first, second] : [first]);

/** Score the texts; `isQuiet` leaves focus and place with the reader, who is typing. */
async function score(isQuiet = false) {
  clearTimeout(typing);
  running?.abort();
  const mine = new AbortController();
  running = mine;
  // All of it now, because the editors may change before the scores are here.
  const texts = editors().map(({ item, bytes }, index) => ({ name: nameOf(index), item, bytes }));
  const asked = state();
  const clock = startClock();
  show(byId("problem"), false);
  setBusy(true);
  try {
    const onProgress = (state) => { if (running === mine) clock.tell(state); };
    // Unknown until a worker is ready, which may have been after this page was opened.
    if (windows.size === Infinity) await readInfo(mine.signal);
    if (mine.signal.aborted) throw new Cancelled(Promise.resolve(true));
    const items = texts.map((text) => request(text, asked));
    const result = await scoreItems(items, routes, { signal: mine.signal, onProgress });
    if (running === mine) showResult({ texts, asked, result }, isQuiet);
  } catch (error) {
    if (running === mine) showFailure(error, isQuiet);
  } finally {
    clock.stop();
    if (running === mine) {
      running = null;
      setBusy(false);
    }
  }
}

/** A text as the API takes it, with what the options ask for. */
function request({ item, bytes }, { context, next }) {
  if (context !== "") {
    return "text" in item
      ? { context, continuation: item.text }
      : { context, continuation_b64: item.text_b64 };
  }
  if (bytes.length > windows.size) return { ...item, window: windows, outputs: ["bytes"] };
  return next ? { ...item, next_chars: NUM_NEXT } : item;
}

const nameOf = (index) => (isComparing() ? ["First text", "Second text"][index] : "Text");

function showResult({ texts, asked, result }, isQuiet) {
  const failed = result.items.findIndex((item) => item.error);
  if (failed >= 0) throw new Problem({ ...result.items[failed].error, errors: [{ pointer: `/items/${failed}` }] });
  const scored = texts.map(({ name, bytes }, index) => new ScoredText(name, bytes, scoreOf(result.items[index].result)));
  byId("summary").replaceChildren(...summary(scored, result, asked.context));
  showTexts(scored, result.model, asked);
  byId("progress").textContent = "";
  byId("progress").append(element("span", { class: "visually-hidden" }, announcement(scored)));
  show(byId("results"), true);
  showModel(result.model);
  if (isQuiet) return;
  byId("results-name").focus({ preventScroll: true });
  byId("results").scrollIntoView({ block: "start", behavior: isStill() ? "auto" : "smooth" });
}

/** The scores of a text, or of the one continuation of a context. */
const scoreOf = (result) => result.continuations?.[0] ?? result;

const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function showFailure(error, isQuiet) {
  byId("progress").textContent = "";
  if (error instanceof Cancelled) {
    showCancelled(error.erased);
    return;
  }
  showProblem(error instanceof Problem ? error.body : OF_THE_PAGE, isQuiet);
  if (!(error instanceof Problem)) throw error;
}

/** A fault of these modules; the browser's console has its trace. */
const OF_THE_PAGE = {
  type: "page_failed",
  title: "The page could not show the result",
  detail: "It has a fault, or the browser lacks memory for a text of this length. Try a shorter text.",
};

function showProblem(body, isQuiet) {
  const { request_id: requestId, type } = body;
  const ofKey = keyProblem(body);
  const { title, detail } = ofKey ?? body;
  byId("problem").replaceChildren(
    element("p", {}, element("strong", {}, title, "."), " ", detail),
    element("p", { class: "small" }, `Code ${type}`, requestId ? `, request ${requestId}` : ""),
  );
  show(byId("problem"), true);
  if (ofKey && type !== "quota_exceeded") askForKey(ofKey, { isQuiet });
  else if (!isQuiet) editorOf(body)?.field.focus();
}

/** Say what became of the text, as soon as the service has answered. */
function showCancelled(erased) {
  const said = element("span", {}, "Cancelled.");
  byId("progress").append(said);
  erased.then((isErased) => {
    said.textContent = isErased
      ? "Cancelled. The service does not keep the text."
      : "Cancelled. The page could not erase the text. The service may keep it until its result expires.";
  });
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
  const render = () => byId("progress").replaceChildren(...progress({ ...state, hurry, estimateS }, elapsed()));
  let startedS = null;
  let estimateS = null;
  const estimate = (numBytes) => {
    startedS ??= elapsed();
    expectedSeconds(numBytes).then((seconds) => { estimateS = startedS + seconds; }, () => {});
  };
  const timer = setInterval(() => { if (state.phase !== "RETRYING") render(); }, 1000);
  render();
  return {
    tell(now) {
      const isSameProblem = now.phase === "RETRYING" && now.problem.body.detail === state.problem?.body.detail;
      state = now;
      if (now.phase === "STARTED") estimate(now.numBytes);
      // The button must stay: it may have the focus, or be pressed just now.
      if (isSameProblem) byId("seconds-left").textContent = `${now.left} s`;
      else render();
    },
    stop: () => clearInterval(timer),
  };
}

/** How long the workers take for so many bytes, at the speed that they report. */
async function expectedSeconds(numBytes) {
  const { body } = await call(routes.stats, {});
  return numBytes / body.recent.bytes_per_s;
}

function progress({ phase, hint, problem, left, hurry, estimateS }, elapsedS) {
  if (phase === "RETRYING") {
    const again = element("button", { type: "button", class: "link", onclick: hurry }, "Try now");
    const { title, detail } = keyProblem(problem.body) ?? problem.body;
    return [element("strong", {}, `${title}.`), ` ${detail} Trying again in `,
      silent(`${left} s`, { id: "seconds-left" }), ". ", again];
  }
  const words = { SENDING: "Sending", QUEUED: "Waiting for its turn", STARTED: "Being scored" };
  const since = elapsedS > 0 ? silent(`, ${elapsedS} s`) : "";
  if (phase === "STARTED" && estimateS !== null && Number.isFinite(estimateS)) {
    // A guess may be short: the bar waits just before its end.
    const share = Math.min(elapsedS / estimateS, 0.98);
    return [words.STARTED, since, silent(` of about ${Math.ceil(estimateS)} s`),
      element("progress", { value: share.toFixed(2), "aria-label": "Scored, by estimate" })];
  }
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

/** React to a change of the texts or options. */
function edited() {
  show(byId("problem"), false);
  clearTimeout(typing);
  if (!byId("instant").checked) return;
  const hasTexts = editors().every(({ bytes }) => bytes.length > 0);
  if (!hasTexts) return;
  // Without a key, each pause in typing would send the text in vain.
  if (needsKey && apiKey() === "") askForKey(keyProblem({ type: "unauthorized" }), { isQuiet: true });
  else typing = setTimeout(() => score(true), TYPING_PAUSE_MS);
}

/** Read which model scores, and in which windows it takes long texts; not while the service is away. */
function readInfo(signal) {
  return call(routes.info, { signal }).then(({ body }) => {
    showModel(body.model);
    allowWindows(body);
  }, () => {});
}

/** Take texts over the model's context, in windows that overlap by half. */
function allowWindows({ model, limits: { max_text_bytes: size } }) {
  if (model === null) return;
  // The service takes multiples of the attention window alone.
  const stride = Math.max(Math.floor(size / 2 / model.window_size), 1) * model.window_size;
  windows = { size, stride: Math.min(stride, size) };
}

/** The texts and options, as the tab and a link keep them. */
function state() {
  return {
    texts: editors().map((editor) => editor.state),
    context: byId("context").value,
    next: byId("next").checked,
  };
}

/** Fill in what a link has, or what the tab kept; a link is scored at once. */
async function restore() {
  const linked = await takeLinked();
  const kept = takeKept();
  const found = linked ?? kept;
  if (!Array.isArray(found?.texts)) return;
  compare(found.texts.length > 1);
  editors().forEach((editor, index) => editor.restore(found.texts[index] ?? {}));
  byId("context").value = String(found.context ?? "");
  byId("next").checked = Boolean(found.next);
  byId("options").open = byId("context").value !== "" || byId("next").checked;
  if (linked && !(needsKey && apiKey() === "")) score();
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
  byId("context").value = "";
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
byId("context").addEventListener("input", () => edited());
byId("next").addEventListener("change", () => edited());
byId("instant").addEventListener("change", () => edited());
addEventListener("pagehide", () => {
  // A reader who leaves the page does not need the scores.
  running?.abort(LEAVING);
  keep(state());
});
addEventListener("pageshow", ({ persisted }) => {
  // The browser kept the whole page, so the copy is not needed.
  if (persisted) takeKept();
});
addEventListener("hashchange", restore);
acceptDrops([first, second]);
startShowing();
readInfo();
restore();
