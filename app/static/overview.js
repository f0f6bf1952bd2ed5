/** Draws the whole text small: bits per byte along it, its colours, and the part on the screen. */

import { shape } from "./chart.js";
import { element } from "./dom.js";
import { fixed } from "./format.js";

const MAX_BUCKETS = 360;
const WIDTH = 720;
const LINE_HEIGHT = 56;
const STRIP_HEIGHT = 10;
/** The top of the axis, unless a stretch is higher: as blind a guess as among 256 bytes. */
const LEAST_TOP_BITS = 8;

/** The picture of one text; a press or a drag on it calls `onGo` with the byte there. */
export class Overview {
  #strip = shape("g", {});
  #window = shape("rect", { class: "window", y: 0, height: LINE_HEIGHT + STRIP_HEIGHT, width: 0 });

  constructor(scored, topBits, onGo) {
    this.scored = scored;
    this.top = topBits;
    this.buckets = buckets(scored);
    this.svg = this.#picture();
    this.axis = element("span", { class: "axis", "aria-hidden": "true" }, `${fixed(this.top, 0)} bits`);
    this.root = element("div", { class: "overview" }, this.svg, this.axis);
    this.#listen(onGo);
  }

  /** Take the colours of a view: the strongest level in each stretch of text. */
  paint({ levels, unitOf }) {
    const cells = this.scored.cells;
    const strongest = new Uint8Array(this.buckets.length);
    cells.forEach(({ start, end }, cell) => {
      const last = this.#bucketOf(end - 1);
      for (let bucket = this.#bucketOf(start); bucket <= last; bucket++) {
        strongest[bucket] = Math.max(strongest[bucket], levels[unitOf[cell]]);
      }
    });
    const width = WIDTH / this.buckets.length;
    this.#strip.replaceChildren(...Array.from(strongest, (level, i) => shape("rect", {
      class: `l${level}`, x: (i * width).toFixed(2), y: LINE_HEIGHT, width: (width + 0.2).toFixed(2), height: STRIP_HEIGHT,
    })));
    this.svg.setAttribute("aria-label", this.#words());
  }

  /** Mark the bytes `start` to `end` as those on the screen. */
  mark(start, end) {
    const scale = WIDTH / this.scored.bytes.length;
    const isWhole = end - start >= this.scored.bytes.length;
    this.#window.setAttribute("x", (start * scale).toFixed(2));
    this.#window.setAttribute("width", isWhole ? "0" : Math.max((end - start) * scale, 3).toFixed(2));
  }

  #bucketOf(byte) {
    return Math.min(Math.floor((byte / this.scored.bytes.length) * this.buckets.length), this.buckets.length - 1);
  }

  #words() {
    const [low, high] = [Math.min(...this.buckets), Math.max(...this.buckets)];
    return `Bits per byte along ${this.scored.name}, from ${fixed(low, 1)} to ${fixed(high, 1)}`;
  }

  #picture() {
    const step = WIDTH / this.buckets.length;
    const y = (bits) => (LINE_HEIGHT - 1 - (bits / this.top) * (LINE_HEIGHT - 3)).toFixed(1);
    const points = this.buckets.flatMap((bits, i) => [`${(i * step).toFixed(1)},${y(bits)}`, `${((i + 1) * step).toFixed(1)},${y(bits)}`]);
    const mean = this.scored.result.bits_per_byte;
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${LINE_HEIGHT + STRIP_HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    svg.append(
      shape("polygon", { class: "area", points: `0,${LINE_HEIGHT} ${points.join(" ")} ${WIDTH},${LINE_HEIGHT}` }),
      shape("line", { class: "mean", x1: 0, x2: WIDTH, y1: y(mean), y2: y(mean) }),
      shape("polyline", { class: "line", points: points.join(" ") }),
      this.#strip,
      this.#window,
    );
    return svg;
  }

  #listen(onGo) {
    const go = (event) => {
      const { left, width } = this.svg.getBoundingClientRect();
      const share = Math.min(Math.max((event.clientX - left) / width, 0), 1);
      onGo(Math.min(Math.floor(share * this.scored.bytes.length), this.scored.bytes.length - 1));
    };
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      this.svg.setPointerCapture(event.pointerId);
      go(event);
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (this.svg.hasPointerCapture(event.pointerId)) go(event);
    });
  }
}

/** The top of the axis that fits all of some texts, in bits. */
export const topOf = (texts) =>
  Math.max(LEAST_TOP_BITS, ...texts.map((text) => Math.ceil(Math.max(...buckets(text)))));

/** The mean bits per byte of up to MAX_BUCKETS stretches of equal length. */
function buckets(scored) {
  const size = scored.bytes.length;
  const number = Math.min(size, MAX_BUCKETS);
  return Array.from({ length: number }, (_, i) => {
    const from = Math.floor((i * size) / number);
    const to = Math.floor(((i + 1) * size) / number);
    let sum = 0;
    for (let at = from; at < to; at++) sum += scored.bits(at);
    return sum / (to - from);
  });
}
