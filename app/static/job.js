/** Submits a job, waits for it, and cancels and erases it; passes the service's errors on. */

import { apiKey } from "./key.js";

// Long enough that a page asks rarely, short enough to show soon that no worker is ready.
const FIRST_WAIT_S = 3;
const WAIT_S = 20;
const MAX_ATTEMPTS = 8;
const MAX_PAUSE_S = 30;
const FINAL = new Set(["SUCCESS", "FAILURE", "REVOKED"]);

/** The reason to cancel a job when the page is closing. */
export const LEAVING = new DOMException("The page is closing.", "AbortError");

/** An error that the service answered (RFC 9457), or one for no answer. */
export class Problem extends Error {
  constructor(body, retryAfterS = null) {
    super(body.detail);
    this.body = body;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * Score `items` in one job, which is erased as soon as its result is here.
 *
 * @param {object[]} items each with `text` or `text_b64`
 * @param {object} routes paths: score, ready
 * @param {object} options signal: cancels the job; onProgress: is called with {phase, ...}
 * @returns {Promise<object>} the result of the job
 * @throws {Problem} and Cancelled
 */
export async function scoreItems(items, routes, { signal, onProgress }) {
  const run = new Run(items, routes, { signal, onProgress });
  try {
    await unlessAborted(run.submit(), signal);
    return await run.result();
  } catch (error) {
    throw error.name === "AbortError" ? new Cancelled(run.erase()) : error;
  } finally {
    run.erase();
  }
}

/** The job was cancelled; `erased` resolves to whether the service holds nothing of it. */
export class Cancelled extends Error {
  constructor(erased) {
    super();
    this.erased = erased;
  }
}

class Run {
  // The key of the job alone can read and erase it, so later changes of the field must not count.
  #authorized = authorization();
  // The same for each try, so that a lost answer does not make a second job.
  #idempotencyKey = randomKey();
  #job = null;
  /** The last attempt to submit. */
  #attempt = null;
  /** Whether the service may have accepted the job in an attempt that failed. */
  #isAnswerLost = false;
  #erased = null;

  constructor(items, routes, { signal, onProgress }) {
    this.items = items;
    this.routes = routes;
    this.signal = signal;
    this.onProgress = onProgress;
    // At once, because the page may be closing.
    signal.addEventListener("abort", () => this.erase());
  }

  async submit() {
    this.#job = await this.#insist(() => {
      this.#attempt = this.#submitOnce();
      return this.#attempt;
    });
  }

  async #submitOnce() {
    try {
      return await submit(this.items, this.routes.score, { ...this.#authorized, "Idempotency-Key": this.#idempotencyKey });
    } catch (error) {
      const isRefused = error.body.status < 500 || error.body.type === "overloaded";
      if (!isRefused) this.#isAnswerLost = true;
      throw error;
    }
  }

  async result() {
    for (let waitS = FIRST_WAIT_S; !FINAL.has(this.#job.state); waitS = WAIT_S) {
      const isStuck = this.#job.state === "QUEUED" && waitS === WAIT_S;
      const { state: phase, num_bytes: numBytes } = this.#job;
      this.onProgress({ phase, numBytes, hint: isStuck ? await absence(this.routes.ready, this.#authorized) : null });
      await this.#wait(waitS);
    }
    if (this.#job.state !== "SUCCESS") throw new Problem(this.#job.error);
    return this.#job.result;
  }

  /**
   * Erase text and result on the service, which cancels a job that has not ended.
   *
   * @returns {Promise<boolean>} whether the service holds nothing of them
   */
  erase() {
    this.#erased ??= this.#erase().catch(() => false);
    return this.#erased;
  }

  async #erase() {
    const job = this.#job ?? await this.#accepted();
    if (job === null) return true;
    const answer = await fetch(job.links.self, { method: "DELETE", headers: this.#authorized, keepalive: true });
    // 410: it was erased before.
    return answer.ok || answer.status === 410;
  }

  /** The job of the attempts so far; null if the service accepted none. */
  async #accepted() {
    const job = await this.#attempt.catch(() => null);
    if (job !== null || !this.#isAnswerLost || !this.signal.aborted) return job;
    // Nobody would erase what the service accepts now.
    if (this.signal.reason === LEAVING) throw LEAVING;
    // The service knows the job by its key, and answers with it again.
    return this.#submitOnce();
  }

  async #wait(waitS) {
    const began = performance.now();
    const path = `${this.#job.links.self}?wait=${waitS}`;
    const answer = await this.#insist(() => call(path, { signal: this.signal, headers: this.#authorized }));
    this.#job = answer.body;
    // Too many requests wait, or the server is stopping: it says when to try again.
    const isRefused = performance.now() - began < 500;
    if (!FINAL.has(this.#job.state) && isRefused) await pause(answer.retryAfterS ?? 1, this.signal);
  }

  /** Repeat a call that may succeed later, after the pause that the service asks for. */
  async #insist(ask) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await ask();
      } catch (problem) {
        if (!(problem instanceof Problem) || !problem.body.retryable || attempt === MAX_ATTEMPTS) throw problem;
        const seconds = problem.retryAfterS ?? Math.min(2 ** attempt, MAX_PAUSE_S);
        await countdown(seconds, this.signal, (left, hurry) =>
          this.onProgress({ phase: "RETRYING", problem, left, hurry }));
      }
    }
  }
}

async function submit(items, path, headers) {
  const body = { items, outputs: ["bytes", "top_k"], top_k: 5, priority: "interactive" };
  const answer = await call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  return answer.body;
}

/** Why texts are not scored now, as a sentence; null if they are. */
async function absence(path, headers) {
  try {
    await call(path, { headers });
    return null;
  } catch (error) {
    return error instanceof Problem ? error.body.detail : null;
  }
}

/**
 * Call a route, without `headers` with the API key of the field.
 *
 * @returns {Promise<object>} {body, retryAfterS}
 * @throws {Problem} unless it succeeded
 */
export async function call(path, { headers = authorization(), ...options }) {
  let response;
  let body;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", referrerPolicy: "no-referrer" });
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw error instanceof SyntaxError ? unreadable(response) : unreachable();
  }
  if (!response.ok) throw new Problem(body, retryAfter(response));
  return { body, retryAfterS: retryAfter(response) };
}

/** The header that carries the API key; none without a key. */
function authorization() {
  const key = apiKey();
  if (key === "") return {};
  if (!/^[!-~]+$/.test(key)) {
    throw new Problem({ type: "unauthorized", detail: "It has characters that no key has; copy it again.", retryable: false });
  }
  return { Authorization: `Bearer ${key}` };
}

const retryAfter = (response) => Number(response.headers.get("Retry-After")) || null;

/** There was no answer, or it broke off. */
const unreachable = () => new Problem({
  type: "unreachable",
  title: "The service does not answer",
  detail: "It may be restarting, or the network is down.",
  retryable: true,
});

const unreadable = (response) => new Problem({
  type: "unreadable",
  title: `Status ${response.status}`,
  detail: "The answer is not from evascore; check the address and any proxy.",
  retryable: response.status >= 500,
}, retryAfter(response));

async function countdown(seconds, signal, onTick) {
  let isHurried = false;
  let wake = () => {};
  const hurry = () => { isHurried = true; wake(); };
  for (let left = seconds; left > 0 && !isHurried; left--) {
    onTick(left, hurry);
    await Promise.race([pause(1, signal), new Promise((resolve) => { wake = resolve; })]);
  }
}

function pause(seconds, signal) {
  return unlessAborted(new Promise((resolve) => { setTimeout(resolve, seconds * 1000); }), signal);
}

function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** A random key; crypto.randomUUID is missing on pages over plain HTTP from another machine. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16)).join("");
}
