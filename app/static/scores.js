/** Holds the scores of one text, per byte and summed per character. */

import { hex } from "./format.js";
import { graphemes } from "./graphemes.js";

const BITS_PER_NAT = 1 / Math.LN2;
// As Python's str.isspace, by which the service cuts words; JavaScript also counts U+FEFF.
const SPACE = /^(?!\ufeff)[\s\x1c-\x1f\x85]+$/u;

/** A text with its result: its characters, each with the bits of its bytes. */
export class ScoredText {
  #units = new Map();

  constructor(name, bytes, result) {
    this.name = name;
    this.bytes = bytes;
    this.result = result;
    this.cells = graphemes(bytes);
    for (const cell of this.cells) cell.bits = this.#sum(cell.start, cell.end);
  }

  /**
   * The characters or words in order: [{start, end, from, to, bits}], of bytes start to end - 1 and
   * characters from to to - 1. A word has the whitespace before it, as the API's spans have.
   */
  units(kind) {
    if (!this.#units.has(kind)) {
      const cuts = kind === "words" ? wordCuts(this.cells) : this.cells.keys();
      const starts = [...cuts, this.cells.length];
      this.#units.set(kind, starts.slice(0, -1).map((from, i) => this.#unit(from, starts[i + 1])));
    }
    return this.#units.get(kind);
  }

  #unit(from, to) {
    const start = this.cells[from].start;
    const end = this.cells[to - 1].end;
    return { start, end, from, to, bits: this.#sum(start, end) };
  }

  #sum(start, end) {
    let sum = 0;
    for (let at = start; at < end; at++) sum += this.bits(at);
    return sum;
  }

  /** Bits of the byte at `at`. */
  bits(at) {
    // Without the max, a certain byte would print as -0.
    return Math.max(-this.result.bytes.log_prob_nats[at] * BITS_PER_NAT, 0);
  }

  rank(at) {
    return this.result.bytes.rank[at];
  }

  entropy(at) {
    return this.result.bytes.entropy_bits[at];
  }

  /** The likeliest ids at `at`, best first: [{id, probability}]; none for a text in windows. */
  likeliest(at) {
    return (this.result.top_k?.[at] ?? []).map(([id, nats]) => ({ id, probability: Math.exp(nats) }));
  }

  /** Share of the bytes that were the model's first guess. */
  get guessed() {
    return this.result.bytes.rank.filter((rank) => rank === 1).length / this.bytes.length;
  }

  /** Per Unicode character, or per visible one where the bytes are not UTF-8. */
  get bitsPerCharacter() {
    const number = this.result.num_chars ?? this.cells.length;
    return (this.result.bits_per_byte * this.bytes.length) / number;
  }
}

/** Where words begin: at the whitespace before them; whitespace at the end is a unit of its own. */
function wordCuts(cells) {
  const isSpace = cells.map(({ text }) => text !== null && SPACE.test(text));
  return cells.flatMap((_, at) => (at === 0 || (isSpace[at] && !isSpace[at - 1]) ? [at] : []));
}

// Characters that are invisible, or that would reorder or join their neighbours.
const UNSEEN = /^[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]+$/u;

/** How a character is drawn: {label, isBox, hasBreak}; a box shows a name instead. */
export function drawing(cell, bytes) {
  if (cell.text === null) return { label: hex(bytes[cell.start]), isBox: true };
  if (cell.text === "\n" || cell.text === "\r\n") return { label: "↵", isBox: true, hasBreak: true };
  if (cell.text === "\t") return { label: "⇥\t", isBox: false };
  if (UNSEEN.test(cell.text)) return { label: codePoints(cell.text), isBox: true };
  return { label: /^\p{M}/u.test(cell.text) ? `◌${cell.text}` : cell.text, isBox: false };
}

/** How a character stands in a line of plain text. */
export function inline(cell, bytes) {
  if (cell.text === null) return `\\x${hex(bytes[cell.start])}`;
  const { label, isBox } = drawing(cell, bytes);
  return isBox && label.startsWith("U+") ? `\\u{${label.slice(2)}}` : label.trimEnd() || " ";
}

/** The name of a character for speech and lists. */
export function spoken(cell, bytes) {
  if (cell.text === null) return `byte ${hex(bytes[cell.start])}, not UTF-8`;
  const names = { " ": "space", "\n": "line end", "\r\n": "line end", "\t": "tab", "\u00a0": "no-break space" };
  if (cell.text in names) return names[cell.text];
  return UNSEEN.test(cell.text) ? codePoints(cell.text) : cell.text;
}

/** The code points of a text, as U+0041 U+0301. */
export function codePoints(text) {
  return [...text].map((char) => `U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`).join(" ");
}
