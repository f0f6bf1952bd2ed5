/** Shows the heat map of one text, with details by pointer, touch and keyboard. */

import { element } from "./dom.js";
import { count, fixed, number } from "./format.js";
import { details } from "./details.js";
import { paint } from "./scales.js";
import { drawing, spoken } from "./scores.js";
import { firstNot } from "./search.js";

const MARGIN_PX = 8;
// The browser lays out a whole line when one of its characters changes, and only near the screen. So
// lines must be much shorter than the text.
const LINE_CHARACTERS = 1000;
// Lines that come near the screen have their true heights two frames later, and may bring others.
const SETTLING_FRAMES = 6;
// Shorter maps are drawn whole, so that pictures of the whole page have no holes.
const WHOLE_CHARACTERS = 10_000;
// Elements cost the browser about 1 kB each; a text of 1 MB is shown in parts.
const PART_CHARACTERS = 40_000;

/** A heat map; to assistive technology it is a slider along the text, whose value is spoken. */
export class HeatMap {
  /** Units (characters or words) that are selected and shown in the card; -1 for none. */
  #selected = -1;
  #shown = -1;
  /** The unit from which the arrow keys move. */
  #cursor = 0;
  #part = 0;

  constructor(scored, view = paint([scored], "byte", "characters").views[0]) {
    this.scored = scored;
    this.view = view;
    this.map = element("div", {
      class: "map",
      role: "slider",
      tabindex: "0",
      dir: "auto",
      translate: "no",
      "aria-valuemin": "1",
    });
    this.card = element("div", { class: "card", tabindex: "-1", hidden: true });
    this.root = element("div", { class: "map-frame" }, this.#pager(), this.map, this.card);
    this.#draw();
    this.#describe();
    this.#listen();
  }

  /** Show other units or levels; the selection closes. */
  paint(view) {
    const byte = this.view.units[this.#cursor].start;
    this.#close();
    this.view = view;
    this.#cursor = this.unitAt(byte);
    this.#colour();
    this.#describe();
  }

  /** The index of the unit with the byte at `byte`. */
  unitAt(byte) {
    return Math.max(firstNot(this.view.units, ({ start }) => start <= byte) - 1, 0);
  }

  /** Select a unit, as a click on it does, and bring it into view. */
  select(index, block = "nearest") {
    this.#mark(this.#selected, "selected", false);
    this.#selected = this.#cursor = index;
    // A word may begin in the part before the one that shows its end.
    if (this.#nodesOf(index).length === 0) this.#turnTo(this.view.units[index].from);
    this.#mark(index, "selected", true);
    this.map.focus({ preventScroll: true });
    this.#speak(index);
    this.#open(index);
    this.#settle(index, SETTLING_FRAMES, block);
  }

  /** The bytes on the screen, as [start, end]; null while the map is off the screen. */
  visible() {
    const lines = [...this.map.children];
    const rect = (node) => node.getBoundingClientRect();
    const isAbove = (node) => rect(node).bottom <= 0;
    const isBelow = (node) => rect(node).top >= innerHeight;
    const first = firstNot(lines, isAbove);
    const last = firstNot(lines, (node) => !isBelow(node)) - 1;
    if (first > last) return null;
    const top = lines[first].children;
    const bottom = lines[last].children;
    const from = top[Math.min(firstNot(top, isAbove), top.length - 1)];
    const to = bottom[Math.max(firstNot(bottom, (node) => !isBelow(node)) - 1, 0)];
    const { cells } = this.scored;
    return [cells[Number(from.dataset.i)].start, cells[Number(to.dataset.i)].end];
  }

  /** Keep the selected unit and its card in view while the lines around them are laid out. */
  #settle(index, frames, block) {
    if (index !== this.#selected || frames === 0) return;
    this.#node(index).scrollIntoView({ block });
    this.#place(this.#node(index));
    requestAnimationFrame(() => this.#settle(index, frames - 1, block));
  }

  /** Show the part that holds character `cell`. */
  #turnTo(cell) {
    const part = Math.floor(cell / PART_CHARACTERS);
    if (part === this.#part) return;
    this.#part = part;
    this.#draw();
  }

  get #numParts() {
    return Math.ceil(this.scored.cells.length / PART_CHARACTERS);
  }

  /** Which part of a long text the map shows, in words; null if it shows all of the text. */
  get part() {
    return this.#numParts > 1 ? `part ${this.#part + 1} of ${this.#numParts}` : null;
  }

  #pager() {
    const numParts = this.#numParts;
    if (numParts === 1) return null;
    this.place = element("span", {});
    const turn = (step) => {
      const part = Math.min(Math.max(this.#part + step, 0), numParts - 1);
      this.#turnTo(part * PART_CHARACTERS);
      this.select(this.view.unitOf[part * PART_CHARACTERS], "center");
    };
    const button = (step, name) => element("button", { type: "button", class: "quiet", onclick: () => turn(step) }, name);
    return element("p", { class: "pager" }, button(-1, "Previous part"), this.place, button(1, "Next part"));
  }

  #draw() {
    const { cells, bytes } = this.scored;
    const from = this.#part * PART_CHARACTERS;
    const shown = cells.slice(from, from + PART_CHARACTERS);
    const breaks = new Set();
    this.nodes = shown.map((cell, index) => {
      const { label, isBox, hasBreak } = drawing(cell, bytes);
      const node = document.createElement("span");
      node.textContent = label;
      node.dataset.i = from + index;
      node.classList.toggle("box", isBox);
      if (hasBreak) breaks.add(index);
      return node;
    });
    this.#colour();
    this.map.classList.toggle("skips", shown.length > WHOLE_CHARACTERS);
    this.map.replaceChildren();
    for (const [start, end] of lines(shown, breaks)) {
      this.map.append(element("div", { class: "line" }, ...this.nodes.slice(start, end)));
    }
    if (this.place) this.place.textContent = `Characters ${number(from + 1)} to ${number(from + shown.length)} of ${number(cells.length)}`;
  }

  #colour() {
    const { levels, unitOf } = this.view;
    const from = this.#part * PART_CHARACTERS;
    this.nodes.forEach((node, i) => {
      const isBox = node.classList.contains("box");
      node.className = `c l${levels[unitOf[from + i]]}${isBox ? " box" : ""}`;
    });
  }

  #describe() {
    const { units, noun } = this.view;
    this.map.classList.toggle("of-words", noun === "word");
    this.map.setAttribute("aria-label", `Heat map of ${this.scored.name}: step through its ${count(units.length, noun)}`);
    this.map.setAttribute("aria-valuemax", String(units.length));
    this.#speak(this.#cursor);
  }

  #listen() {
    const indexOf = (event) => {
      const node = event.target.closest?.(".c");
      return node ? this.view.unitOf[Number(node.dataset.i)] : -1;
    };
    this.map.addEventListener("pointerover", (event) => {
      // A selected character keeps the card, so that the pointer can reach it.
      const isFree = this.#selected < 0 && event.pointerType === "mouse";
      if (isFree && indexOf(event) >= 0) this.#open(indexOf(event));
    });
    this.root.addEventListener("pointerleave", () => { if (this.#selected < 0) this.#close(); });
    this.map.addEventListener("click", (event) => {
      if (indexOf(event) < 0 || !getSelection().isCollapsed) return;
      if (indexOf(event) === this.#selected) this.#close();
      else this.select(indexOf(event));
    });
    this.map.addEventListener("keydown", (event) => this.#key(event));
    this.root.addEventListener("keydown", ({ key }) => { if (key === "Escape") this.#dismiss(); });
    this.root.addEventListener("focusout", ({ relatedTarget }) => {
      if (!this.root.contains(relatedTarget)) this.#close();
    });
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const last = this.view.units.length - 1;
    const at = this.#cursor;
    const steps = {
      ArrowRight: () => at + 1,
      ArrowLeft: () => at - 1,
      ArrowDown: () => this.#beside(at, 1),
      ArrowUp: () => this.#beside(at, -1),
      PageDown: () => at + 50,
      PageUp: () => at - 50,
      Home: () => 0,
      End: () => last,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    // The first key only shows where the cursor is.
    const isFirst = this.#selected < 0 && event.key.startsWith("Arrow");
    this.select(isFirst ? at : Math.min(Math.max(steps[event.key](), 0), last));
  }

  /** The character nearest to `from` in the next or previous line on the screen. */
  #beside(from, step) {
    const place = (index) => this.#node(index).getBoundingClientRect();
    const start = place(from);
    const centre = start.left + start.width / 2;
    let best = from;
    let lineTop = null;
    for (let index = from + step; this.#node(index); index += step) {
      const { top, left, width, height } = place(index);
      if (Math.abs(top - start.top) < height / 2) continue;
      lineTop ??= top;
      if (Math.abs(top - lineTop) > height / 2) break;
      const distance = Math.abs(left + width / 2 - centre);
      const { left: bestLeft, width: bestWidth } = place(best);
      if (best === from || distance < Math.abs(bestLeft + bestWidth / 2 - centre)) best = index;
    }
    return best;
  }

  #speak(index) {
    const { bytes, cells } = this.scored;
    const { start, end, from, to, bits } = this.view.units[index];
    const name = to - from === 1
      ? spoken(cells[from], bytes)
      : cells.slice(from, to).map((cell) => cell.text ?? spoken(cell, bytes)).join("").trim();
    const parts = [`${name}: ${fixed(bits, 1)} bits`];
    if (end - start === 1) parts.push(`rank ${this.scored.rank(start)}`);
    else parts.push(`${end - start} bytes`);
    this.map.setAttribute("aria-valuenow", String(index + 1));
    this.map.setAttribute("aria-valuetext", parts.join(", "));
  }

  #open(index) {
    this.#mark(this.#shown, "shown", false);
    this.#shown = index;
    this.#mark(index, "shown", true);
    const close = element(
      "button",
      { type: "button", class: "close", "aria-label": "Close", onclick: () => this.#dismiss() },
      "×",
    );
    this.card.replaceChildren(close, ...details(this.scored, this.view.units[index], this.view.levels[index]));
    this.card.hidden = false;
    this.#place(this.#node(index));
  }

  /** Close when the reader asks for it, and keep the focus on the map. */
  #dismiss() {
    this.#close();
    this.map.focus({ preventScroll: true });
  }

  #close() {
    this.#mark(this.#selected, "selected", false);
    this.#mark(this.#shown, "shown", false);
    this.#selected = this.#shown = -1;
    this.card.hidden = true;
  }

  /** Below the character, or above it where there is more room; inside the window in any case. */
  #place(node) {
    const frame = this.root.getBoundingClientRect();
    // The first piece of a character that is broken over two lines.
    const spot = node.getClientRects()[0] ?? node.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.card;
    const room = document.documentElement.clientWidth - width - MARGIN_PX;
    const left = Math.max(Math.min(Math.max(spot.left - width / 2 + spot.width / 2, frame.left), room), MARGIN_PX);
    const fitsBelow = spot.bottom + height + MARGIN_PX < innerHeight || spot.top < height + MARGIN_PX;
    const top = fitsBelow ? spot.bottom + MARGIN_PX / 2 : spot.top - height - MARGIN_PX / 2;
    this.card.style.setProperty("--left", `${left - frame.left}px`);
    this.card.style.setProperty("--top", `${top - frame.top}px`);
  }

  /** The element of the first visible character of a unit; a word begins with whitespace. */
  #node(index) {
    const nodes = this.#nodesOf(index);
    return nodes.find((node) => node.textContent.trim() !== "" && node.textContent !== "↵") ?? nodes[0];
  }

  #nodesOf(index) {
    const unit = this.view.units[index];
    const before = this.#part * PART_CHARACTERS;
    return unit ? this.nodes.slice(Math.max(unit.from - before, 0), Math.max(unit.to - before, 0)) : [];
  }

  #mark(index, name, isOn) {
    for (const node of this.#nodesOf(index)) node.classList.toggle(name, isOn);
  }
}

/** Start and end of each line: after a line end, or after a space in a very long line. */
function* lines(cells, breaks) {
  let from = 0;
  for (let at = 0; at < cells.length; at++) {
    const length = at + 1 - from;
    const isLong = length >= LINE_CHARACTERS && (cells[at].text === " " || length >= 2 * LINE_CHARACTERS);
    if (!breaks.has(at) && !isLong) continue;
    yield [from, at + 1];
    from = at + 1;
  }
  if (from < cells.length) yield [from, cells.length];
}
