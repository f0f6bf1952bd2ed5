/** Shows two texts as one map: what they share, with how much likelier it is in each. */

import { count, fixed } from "./format.js";
import { element } from "./dom.js";
import { drawing } from "./scores.js";

/** Texts whose words are longer on average, in characters, are in a script without spaces. */
const LONG_WORD = 20;
/** More edits than these are not searched for; the texts then share only their two ends. */
const MAX_EDITS = 1500;
/** Longer lines are cut: the browser takes long to lay out a line of very many elements. */
const LINE_UNITS = 500;
/** The levels of a difference, on each side of 0; one per bit. */
const MAX_SIDE = 4;

/**
 * The map of the second text against the first; null where they share nothing.
 *
 * @param {Column[]} columns two of them
 */
export function differenceOf([first, second]) {
  const texts = [first.scored, second.scored];
  const hasWords = texts.every((text) => text.cells.length < LONG_WORD * text.units("words").length);
  const [a, b] = texts.map((text) =>
    text.units(hasWords ? "words" : "characters").map((unit) => ({ ...unit, key: key(text, unit) })));
  const steps = align(a, b);
  const shared = steps.filter(({ kind }) => kind === "same");
  if (shared.length === 0) return null;
  const map = element("div", { class: "map difference-map", translate: "no", tabindex: "0", role: "group", "aria-labelledby": "difference-name" });
  map.append(drawnLines(steps, first.scored, second.scored));
  // Last, because the browser would look for the direction once per line.
  map.setAttribute("dir", "auto");
  const mean = shared.reduce((sum, { change }) => sum + change, 0) / shared.length;
  const side = mean < 0 ? "less" : "more";
  return element(
    "section",
    { class: "difference", "aria-labelledby": "difference-name" },
    element("h3", { id: "difference-name" }, "What changed"),
    element("p", { class: "hint" },
      `The second text against the first. They share ${count(shared.length, hasWords ? "word" : "character")}, each on average ` +
      `${fixed(Math.abs(mean), 2)} bits ${side} surprising in the second.`),
    element("ul", { class: "difference-legend" }, ...legendEntries()),
    map,
  );
}

function legendEntries() {
  const entry = (mark, words) => element("li", {}, mark, ` ${words}`);
  return [
    entry(element("span", { class: "c easier d4" }, "−4"), "bits or less: more expected in the second text"),
    entry(element("span", { class: "c harder d4" }, "+4"), "bits or more: less expected in it"),
    entry(element("del", {}, "cut"), "only in the first"),
    entry(element("ins", {}, "new"), "only in the second"),
  ];
}

const key = (scored, { from, to }) =>
  scored.cells.slice(from, to).map(({ text, start }) => text ?? `\u0000${scored.bytes[start]}`).join("");

/** The lines of the map. */
function drawnLines(steps, a, b) {
  const lines = document.createDocumentFragment();
  let line = null;
  for (const step of steps) {
    if (line === null || line.childElementCount === LINE_UNITS) {
      line = element("div", { class: "line" });
      lines.append(line);
    }
    const { node, hasBreak } = drawn(step, a, b);
    line.append(node);
    if (hasBreak) line = null;
  }
  return lines;
}

function drawn({ kind, unit, change }, a, b) {
  const scored = kind === "cut" ? a : b;
  const cells = scored.cells.slice(unit.from, unit.to).map((cell) => drawing(cell, scored.bytes));
  const label = cells.map((cell) => cell.label).join("");
  const hasBreak = cells.some((cell) => cell.hasBreak);
  const bits = `${fixed(unit.bits, 1)} bits`;
  if (kind === "cut") return { node: element("del", { title: bits }, label), hasBreak };
  if (kind === "new") return { node: element("ins", { title: bits }, label), hasBreak };
  const strength = Math.min(Math.round(Math.abs(change)), MAX_SIDE);
  const side = strength === 0 ? "" : change < 0 ? " easier" : " harder";
  const title = `${change > 0 ? "+" : ""}${fixed(change, 1)} bits`;
  return { node: element("span", { class: `c${side} d${strength}`, title }, label), hasBreak };
}

/** The texts as steps in the order of the second: {kind: same | cut | new, unit, change}. */
function align(a, b) {
  let head = 0;
  while (head < a.length && head < b.length && a[head].key === b[head].key) head += 1;
  let tail = 0;
  while (tail < Math.min(a.length, b.length) - head && a.at(-1 - tail).key === b.at(-1 - tail).key) tail += 1;
  const same = (from, to) => ({ kind: "same", unit: to, change: to.bits - from.bits });
  const middle = edits(a.slice(head, a.length - tail), b.slice(head, b.length - tail), same);
  const pairs = (count, from) => Array.from({ length: count }, (_, i) => same(a[from[0] + i], b[from[1] + i]));
  return [...pairs(head, [0, 0]), ...middle, ...pairs(tail, [a.length - tail, b.length - tail])];
}

/** A shortest edit script (Myers 1986, figure 2). */
function edits(a, b, same) {
  const trace = search(a, b);
  if (trace === null) return [...a.map((unit) => ({ kind: "cut", unit })), ...b.map((unit) => ({ kind: "new", unit }))];
  const steps = [];
  let [x, y] = [a.length, b.length];
  for (let edit = trace.length - 1; edit >= 0; edit--) {
    const furthest = trace[edit];
    const diagonal = x - y;
    const isNew = diagonal === -edit || (diagonal !== edit && at(furthest, diagonal - 1) < at(furthest, diagonal + 1));
    const before = isNew ? diagonal + 1 : diagonal - 1;
    const startX = edit === 0 ? 0 : at(furthest, before);
    const startY = edit === 0 ? 0 : startX - before;
    while (x > startX && y > startY) steps.push(same(a[--x], b[--y]));
    if (edit === 0) break;
    if (isNew) steps.push({ kind: "new", unit: b[--y] });
    else steps.push({ kind: "cut", unit: a[--x] });
  }
  return steps.reverse();
}

const at = (furthest, diagonal) => furthest.get(diagonal) ?? -1;

/** Per number of edits: the furthest x on each diagonal before that edit; null beyond MAX_EDITS. */
function search(a, b) {
  const trace = [];
  let furthest = new Map([[1, 0]]);
  for (let edit = 0; edit <= Math.min(a.length + b.length, MAX_EDITS); edit++) {
    trace.push(furthest);
    const next = new Map();
    for (let diagonal = -edit; diagonal <= edit; diagonal += 2) {
      const isNew = diagonal === -edit || (diagonal !== edit && at(furthest, diagonal - 1) < at(furthest, diagonal + 1));
      let x = isNew ? at(furthest, diagonal + 1) : at(furthest, diagonal - 1) + 1;
      let y = x - diagonal;
      while (x < a.length && y < b.length && a[x].key === b[y].key) [x, y] = [x + 1, y + 1];
      next.set(diagonal, x);
      if (x >= a.length && y >= b.length) return trace;
    }
    furthest = next;
  }
  return null;
}
