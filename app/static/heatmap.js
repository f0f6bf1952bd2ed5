/** Shows the heat map of one text, with details by pointer, touch and keyboard. */

import { element } from "./dom.js";
import { count, fixed } from "./format.js";
import { details } from "./details.js";
import { drawing, spoken } from "./scores.js";

const MARGIN_PX = 8;
// The browser lays out a whole line when one of its characters changes, and only near the screen. So
// lines must be much shorter than the text.
const LINE_CHARACTERS = 1000;
// Lines that come near the screen have their true heights two frames later, and may bring others.
const SETTLING_FRAMES = 6;

/** A heat map; to assistive technology it is a slider along the text, whose value is spoken. */
export class HeatMap {
  #selected = -1;
  #shown = -1;
  /** The character from which the arrow keys move. */
  #cursor = 0;

  constructor(scored) {
    this.scored = scored;
    this.map = element("div", {
      class: "map",
      role: "slider",
      tabindex: "0",
      dir: "auto",
      translate: "no",
      "aria-label": `Heat map of ${scored.name}: step through its ${count(scored.cells.length, "character")}`,
      "aria-valuemin": "1",
      "aria-valuemax": String(scored.cells.length),
    });
    this.card = element("div", { class: "card", tabindex: "-1", hidden: true });
    this.root = element("div", { class: "map-frame" }, this.map, this.card);
    this.#draw();
    this.#speak(0);
    this.#listen();
  }

  /** Select a character, as a click on it does, and bring it into view. */
  select(index) {
    this.#node(this.#selected)?.classList.remove("selected");
    this.#selected = this.#cursor = index;
    const node = this.#node(index);
    node.classList.add("selected");
    this.map.focus({ preventScroll: true });
    this.#speak(index);
    this.#open(index);
    this.#settle(index, SETTLING_FRAMES);
  }

  /** Keep the selected character and its card in view while the lines around them are laid out. */
  #settle(index, frames) {
    if (index !== this.#selected || frames === 0) return;
    this.#node(index).scrollIntoView({ block: "nearest" });
    this.#place(this.#node(index));
    requestAnimationFrame(() => this.#settle(index, frames - 1));
  }

  #draw() {
    const { cells, bytes } = this.scored;
    const breaks = new Set();
    this.nodes = cells.map((cell, index) => {
      const { label, isBox, hasBreak } = drawing(cell, bytes);
      const node = document.createElement("span");
      node.className = isBox ? `c l${cell.level} box` : `c l${cell.level}`;
      node.textContent = label;
      node.dataset.i = index;
      if (hasBreak) breaks.add(index);
      return node;
    });
    for (const [from, to] of lines(cells, breaks)) {
      this.map.append(element("div", { class: "line" }, ...this.nodes.slice(from, to)));
    }
  }

  #listen() {
    const indexOf = (event) => Number(event.target.closest?.(".c")?.dataset.i ?? -1);
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
    const last = this.nodes.length - 1;
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
    const place = (index) => this.nodes[index].getBoundingClientRect();
    const start = place(from);
    const centre = start.left + start.width / 2;
    let best = from;
    let lineTop = null;
    for (let index = from + step; index >= 0 && index < this.nodes.length; index += step) {
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
    const cell = this.scored.cells[index];
    const parts = [`${spoken(cell, this.scored.bytes)}: ${fixed(cell.bits, 1)} bits`];
    if (cell.end - cell.start === 1) parts.push(`rank ${this.scored.rank(cell.start)}`);
    else parts.push(`${cell.end - cell.start} bytes`);
    this.map.setAttribute("aria-valuenow", String(index + 1));
    this.map.setAttribute("aria-valuetext", parts.join(", "));
  }

  #open(index) {
    this.#node(this.#shown)?.classList.remove("shown");
    this.#shown = index;
    this.#node(index).classList.add("shown");
    const close = element(
      "button",
      { type: "button", class: "close", "aria-label": "Close", onclick: () => this.#dismiss() },
      "×",
    );
    this.card.replaceChildren(close, ...details(this.scored, index));
    this.card.hidden = false;
    this.#place(this.#node(index));
  }

  /** Close when the reader asks for it, and keep the focus on the map. */
  #dismiss() {
    this.#close();
    this.map.focus({ preventScroll: true });
  }

  #close() {
    this.#node(this.#selected)?.classList.remove("selected");
    this.#node(this.#shown)?.classList.remove("shown");
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

  #node(index) {
    return this.nodes[index];
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
