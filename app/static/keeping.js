/** Keeps the texts of the page: in the tab over a reload, and in the fragment of a link. */

import { base64 } from "./editor.js";

const KEY = "evascore.texts";
const PREFIX = "#texts=";

/** Keep `state` until the tab shows this page again; without storage it is lost. */
export function keep(state) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(state));
  } catch { /* The browser refuses storage, or the text is larger than its share. */ }
}

/** The kept state, which is forgotten by this; null without one. */
export function takeKept() {
  try {
    const kept = sessionStorage.getItem(KEY);
    sessionStorage.removeItem(KEY);
    return kept === null ? null : JSON.parse(kept);
  } catch {
    return null;
  }
}

/** The address of this page with `state` in its fragment, which browsers send to no server. */
export async function linkTo(state) {
  const packed = await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(JSON.stringify(state)));
  return `${location.origin}${location.pathname}${PREFIX}${base64(packed).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/** The state in the fragment of this address, which is taken off; null without a readable one. */
export async function takeLinked() {
  if (!location.hash.startsWith(PREFIX)) return null;
  const coded = location.hash.slice(PREFIX.length).replaceAll("-", "+").replaceAll("_", "/");
  // Else the text would stay in the history of the browser.
  history.replaceState(null, "", location.pathname + location.search);
  try {
    const packed = Uint8Array.from(atob(coded), (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(await through(new DecompressionStream("deflate-raw"), packed)));
  } catch {
    return null;
  }
}

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}
