/** Shows one character: its bytes, their scores, and what the model expected instead. */

import { element } from "./dom.js";
import { fixed, hex, idName, percent } from "./format.js";
import { codePoints, drawing, inline, spoken } from "./scores.js";

/** A script without spaces makes words of any length. */
const MAX_ROWS = 100;

/** The content of the card for a unit (a character or a word) of a scored text. */
export function details(scored, unit, level) {
  return unit.to - unit.from === 1 ? ofCharacter(scored, unit.from, level) : ofWord(scored, unit, level);
}

function ofCharacter(scored, index, level) {
  const cell = scored.cells[index];
  const { label, isBox } = drawing(cell, scored.bytes);
  const positions = Array.from({ length: cell.end - cell.start }, (_, i) => cell.start + i);
  const head = element(
    "p",
    { class: "card-head" },
    element("span", { class: isBox ? `glyph box l${level}` : `glyph l${level}` }, label.trim() || "␣"),
    element("span", {}, element("strong", {}, `${fixed(cell.bits, 2)} bits`), element("br"), origin(cell, positions)),
  );
  return [head, ...positions.map((at) => byteDetails(scored, at, positions.length > 1))];
}

function ofWord(scored, { start, end, from, to, bits }, level) {
  const cells = scored.cells.slice(from, Math.min(to, from + MAX_ROWS));
  const isCut = cells.length < to - from;
  const word = cells.map((cell) => inline(cell, scored.bytes)).join("").trim() + (isCut ? "…" : "");
  const rows = cells.map((cell) => element(
    "tr",
    {},
    element("th", { scope: "row", translate: "no" }, spoken(cell, scored.bytes)),
    element("td", {}, `${fixed(cell.bits, 2)} bits`),
    element("td", {}, "rank ", ranks(scored, cell)),
  ));
  return [
    element("p", { class: "card-head" },
      element("span", { class: `glyph word l${level}`, translate: "no" }, word || "␣"),
      element("span", {}, element("strong", {}, `${fixed(bits, 2)} bits`), element("br"),
        `${fixed(bits / (end - start), 2)} per byte, bytes ${start + 1}–${end}`)),
    element("table", { class: "guesses" }, element("caption", {}, isCut ? `Its first ${MAX_ROWS} characters` : "Its characters"), element("tbody", {}, ...rows)),
  ];
}

function ranks(scored, { start, end }) {
  return Array.from({ length: end - start }, (_, i) => scored.rank(start + i)).join(" ");
}

function origin(cell, positions) {
  const place = `byte${positions.length > 1 ? "s" : ""} ${positions[0] + 1}`;
  const range = positions.length > 1 ? `${place}–${positions.at(-1) + 1}` : place;
  if (cell.text === null) return `not UTF-8, ${range}`;
  return [...cell.text].length > 3 ? range : `${codePoints(cell.text)}, ${range}`;
}

function byteDetails(scored, at, isOneOfMany) {
  const byte = scored.bytes[at];
  const heading = isOneOfMany
    ? element("h4", {}, `Byte ${hex(byte)}: ${fixed(scored.bits(at), 2)} bits`)
    : null;
  return element(
    "section",
    {},
    heading,
    element("p", { class: "facts" }, facts(scored, at)),
    scored.result.top_k ? element(
      "table",
      { class: "guesses" },
      element("caption", {}, "The model expected"),
      element("tbody", {}, ...guesses(scored, at, byte)),
    ) : null,
  );
}

function facts(scored, at) {
  return `Rank ${scored.rank(at)} of 320, entropy ${fixed(scored.entropy(at), 2)} bits`;
}

function guesses(scored, at, byte) {
  const rows = scored.likeliest(at);
  const actual = { id: byte, probability: 2 ** -scored.bits(at) };
  const isListed = rows.some(({ id }) => id === byte);
  return [...rows, ...(isListed ? [] : [actual])].map(({ id, probability }) =>
    element(
      "tr",
      { class: id === byte ? "came" : false },
      element("th", { scope: "row" }, element("code", {}, idName(id))),
      element("td", { class: "bar-cell" }, bar(probability)),
      element("td", {}, percent(probability)),
      element("td", {}, id === byte ? "came" : ""),
    ));
}

/** A bar whose length shows a share from 0 to 1. */
export function bar(share) {
  const made = element("span", { class: "bar" });
  made.style.setProperty("--share", share.toFixed(4));
  return made;
}

/** One row of the table of all characters. */
export function tableRow(scored, index) {
  const cell = scored.cells[index];
  const at = cell.start;
  const bytes = [...scored.bytes.subarray(cell.start, cell.end)];
  const guess = scored.likeliest(at)[0];
  return element(
    "tr",
    {},
    element("td", {}, String(index + 1)),
    element("th", { scope: "row", translate: "no" }, spoken(cell, scored.bytes)),
    element("td", {}, bytes.map(hex).join(" ")),
    element("td", {}, fixed(cell.bits, 2)),
    element("td", {}, ranks(scored, cell)),
    element("td", {}, fixed(scored.entropy(at), 2)),
    element("td", {}, guess ? `${idName(guess.id)} (${percent(guess.probability)})` : "–"),
  );
}
