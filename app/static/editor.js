/** Edits one text: typed, pasted, or a file that is kept byte for byte. */

import { element, show } from "./dom.js";
import { count, number } from "./format.js";

const encoder = new TextEncoder();
const CHUNK_BYTES = 0x8000;

/** An editor on its <section>; it calls `onChange` after every change. */
export class Editor {
  /** Bytes of a file that a text field would change; null while the field holds the text. */
  #file = null;

  constructor(root, { maxBytes, onChange }) {
    this.root = root;
    this.maxBytes = maxBytes;
    this.onChange = onChange;
    this.field = root.querySelector("textarea");
    this.field.addEventListener("input", () => this.#changed());
    this.part("chooser").addEventListener("change", ({ target }) => {
      if (target.files.length > 0) this.read(target.files[0]);
      target.value = "";
    });
    root.querySelector("[data-act=clear]").addEventListener("click", () => {
      this.setText("");
      this.field.focus();
    });
    this.#changed();
  }

  part(name) {
    return this.root.querySelector(`[data-part=${name}]`);
  }

  /** The bytes that are scored. */
  get bytes() {
    return this.#file ?? encoder.encode(this.field.value);
  }

  /** The text as the API takes it. */
  get item() {
    return this.#file === null ? { text: this.field.value } : { text_b64: base64(this.#file) };
  }

  /** What `restore` takes, as JSON can hold it. */
  get state() {
    return { ...this.item, name: this.part("file-name").textContent };
  }

  /** Take a `state`; anything else counts as the empty text. */
  restore({ text, text_b64: coded, name }) {
    if (coded === undefined) this.setText(String(text ?? ""));
    else this.setBytes(fromBase64(String(coded)), String(name));
  }

  setText(text) {
    this.#file = null;
    this.field.value = text;
    this.#changed();
  }

  /** Take the bytes of a file, as text if the field keeps them unchanged. */
  setBytes(bytes, name) {
    this.setText(lossless(bytes) ?? "");
    if (isEqual(this.bytes, bytes)) return;
    this.#file = bytes;
    this.part("file-name").textContent = name;
    this.part("file-note").textContent = isUtf8(bytes)
      ? "is sent unchanged, with its own line ends."
      : "is not UTF-8; its bytes are sent unchanged.";
    this.#changed();
  }

  /** Read a file; refuse one over the limit before it is read. */
  async read(file) {
    if (file.size > this.maxBytes) {
      this.setText("");
      this.#refuse(`${file.name} has ${count(file.size, "byte")}; the limit is ${number(this.maxBytes)}.`);
      return;
    }
    try {
      this.setBytes(new Uint8Array(await file.arrayBuffer()), file.name);
    } catch {
      this.#refuse(`${file.name} cannot be read.`);
    }
  }

  #changed() {
    const size = this.bytes.length;
    const isLarge = size > this.maxBytes;
    show(this.field, this.#file === null);
    show(this.part("file"), this.#file !== null);
    show(this.root.querySelector("[data-act=clear]"), size > 0);
    this.part("size").textContent = `${number(size)} of ${count(this.maxBytes, "byte")}`;
    this.part("size").classList.toggle("bad", isLarge);
    this.field.toggleAttribute("aria-invalid", isLarge);
    this.onChange?.();
  }

  #refuse(sentence) {
    this.part("size").replaceChildren(element("strong", {}, sentence));
    this.part("size").classList.add("bad");
  }
}

/** Put dropped files into `editors`, so that they never replace the page. */
export function acceptDrops(editors) {
  const target = (event) => editors.find(({ root }) => root.contains(event.target)) ?? editors[0];
  const mark = (marked) => editors.forEach((editor) => editor.root.classList.toggle("over", editor === marked));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(target(event));
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) mark(null);
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(null);
    const file = event.dataTransfer.files[0];
    const text = event.dataTransfer.getData("text/plain");
    if (file) target(event).read(file);
    else if (text) target(event).setText(text);
  });
}

/** Whether bytes are well-formed UTF-8. */
export function isUtf8(bytes) {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

const lossless = (bytes) => (isUtf8(bytes) ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes) : null);

const isEqual = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);

/** The bytes of base64; none where it is malformed. */
function fromBase64(coded) {
  try {
    return Uint8Array.from(atob(coded), (char) => char.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

/** Bytes in base64. */
export function base64(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    binary += String.fromCharCode(...bytes.subarray(at, at + CHUNK_BYTES));
  }
  return btoa(binary);
}
