/** Groups the bytes of a text into the characters that a reader sees. */

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
// Browsers without a segmenter show code points, each as one character.
const segmenter = "Segmenter" in Intl ? new Intl.Segmenter(undefined, { granularity: "grapheme" }) : null;

/**
 * The characters of `bytes` in order: [{start, end, text}], of bytes start to end - 1. Each
 * byte that is not UTF-8 is a character of its own, with text null.
 */
export function graphemes(bytes) {
  const cells = [];
  for (let at = 0; at < bytes.length;) {
    const end = endOfValid(bytes, at);
    if (end === at) {
      cells.push({ start: at, end: at + 1, text: null });
      at += 1;
      continue;
    }
    for (const text of segments(decoder.decode(bytes.subarray(at, end)))) {
      const next = at + utf8Length(text);
      cells.push({ start: at, end: next, text });
      at = next;
    }
  }
  return cells;
}

function* segments(text) {
  if (segmenter === null) yield* text;
  else for (const { segment } of segmenter.segment(text)) yield segment;
}

function utf8Length(text) {
  let length = 0;
  for (const char of text) {
    const code = char.codePointAt(0);
    length += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return length;
}

function endOfValid(bytes, from) {
  let at = from;
  for (let length = sequenceLength(bytes, at); length > 0; length = sequenceLength(bytes, at)) at += length;
  return at;
}

/** Bytes of the UTF-8 sequence at `at`; 0 where there is none (The Unicode Standard, table 3-7). */
function sequenceLength(bytes, at) {
  const first = bytes[at];
  if (first === undefined) return 0;
  if (first < 0x80) return 1;
  const length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length === 0) return 0;
  const least = { 0xe0: 0xa0, 0xf0: 0x90 }[first] ?? 0x80;
  const most = { 0xed: 0x9f, 0xf4: 0x8f }[first] ?? 0xbf;
  if (!(bytes[at + 1] >= least && bytes[at + 1] <= most)) return 0;
  for (let i = 2; i < length; i++) {
    if (!(bytes[at + i] >= 0x80 && bytes[at + i] <= 0xbf)) return 0;
  }
  return length;
}
