/** Shows scores as numbers and words, one column per text, and compares two texts. */

import { element } from "./dom.js";
import { count, duration, fixed, number, percent } from "./format.js";
import { bar, tableRow } from "./details.js";
import { HeatMap } from "./heatmap.js";
import { Overview } from "./overview.js";
import { RANK_CLASSES, rankClass } from "./scales.js";
import { inline, spoken } from "./scores.js";

const ROWS_AT_ONCE = 100;
const NUM_SURPRISES = 5;
const CONTEXT_CHARACTERS = 12;
// Smaller probabilities show as powers of ten.
const PLAIN_ODDS = 1e6;
// Accents in a Latin text add less than this to its bytes per character.
const OTHER_SCRIPT = 1.2;
const MUCH_LONGER = 3;
// The overview of a longer text stays on the screen as a minimap.
const LONG_CHARACTERS = 2000;

/** The entries of a legend: [{level, label}]. */
export function legend(entries) {
  return entries.map(({ level, label }) =>
    element("li", {}, element("span", { class: `c l${level}` }, label === "" ? "\u00a0" : label)));
}

/** Everything that is shown of one text; `paint` shows it with other units or colours. */
export class Column {
  constructor(scored, view, { isOneOfTwo, topBits }) {
    this.scored = scored;
    this.view = view;
    this.map = new HeatMap(scored, view);
    this.overview = new Overview(scored, topBits, (byte) => this.map.select(this.map.unitAt(byte), "center"));
    this.overview.paint(view);
    this.root = element(
      "article",
      { class: scored.cells.length > LONG_CHARACTERS ? "column long" : "column", "aria-label": scored.name },
      isOneOfTwo ? element("h3", {}, scored.name) : null,
      this.overview.root,
      this.map.root,
      element("p", { class: "hint keys" }, "Point at the text, tap it, or step with the arrow keys. Press on the line above to go there."),
      element("div", { class: "numbers-frame" }, numbers(scored)),
      element("div", { class: "beside" }, ranks(scored), nextCharacters(scored), surprises(scored, this.map)),
      table(scored),
    );
  }

  paint(view) {
    this.view = view;
    this.map.paint(view);
    this.overview.paint(view);
  }

  /** Mark in the overview what is on the screen. */
  follow() {
    const visible = this.map.visible();
    if (visible) this.overview.mark(...visible);
  }
}

/** How many bytes are in each of GLTR's classes of ranks. */
function ranks(scored) {
  const counts = RANK_CLASSES.map(() => 0);
  for (const rank of scored.result.bytes.rank) counts[rankClass(rank)] += 1;
  const rows = RANK_CLASSES.map(({ name }, i) => {
    const share = counts[i] / scored.bytes.length;
    return element("tr", {}, element("th", { scope: "row" }, name), element("td", { class: "bar-cell" }, bar(share)),
      element("td", {}, percent(share)), element("td", {}, number(counts[i])));
  });
  return element("section", { class: "ranks" }, element("h4", {}, "Ranks of the bytes"),
    element("table", { class: "guesses" }, element("tbody", {}, ...rows)),
    element("p", { class: "hint" }, "Rank 1: the model thought no byte likelier. These are the classes of GLTR."));
}

/** The likeliest characters after the text, where they were asked for. */
function nextCharacters({ result }) {
  const next = result.next_chars;
  if (!next) return null;
  const rows = next.characters.map(([character, probability]) =>
    element("tr", {}, element("th", { scope: "row", translate: "no" }, named(character)),
      element("td", { class: "bar-cell" }, bar(probability)), element("td", {}, percent(probability))));
  return element("section", { class: "next" }, element("h4", {}, "Likeliest next characters"),
    element("table", { class: "guesses" }, element("tbody", {}, ...rows)));
}

const named = (text) => spoken({ text, start: 0, end: 1 }, []);

function numbers({ result, guessed, bitsPerCharacter }) {
  const perplexity = result.byte_perplexity;
  const one = (name, value, unit, meaning) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, element("strong", {}, value), unit),
      element("dd", { class: "meaning" }, meaning));
  const size = result.num_chars === null ? "not UTF-8" : count(result.num_chars, "Unicode character");
  return element(
    "dl",
    { class: "numbers" },
    one("Bits per byte", fixed(result.bits_per_byte, 3), "", "Average surprise; 0 is certain, 8 is blind guessing."),
    one("Perplexity", perplexity === null ? "∞" : perplexity < 100 ? fixed(perplexity, 2) : number(perplexity), "", "As unsure as between that many equally likely bytes."),
    one("Log-likelihood", fixed(result.log_likelihood_nats, 2), " nats", odds(result.log_likelihood_nats)),
    one("First guesses", percent(guessed), "", result.is_greedy
      ? "The model thought every byte the likeliest one."
      : "Bytes that the model thought the likeliest."),
    one("Bits per character", fixed(bitsPerCharacter, 2), "", "Compare texts of different scripts by it."),
    one("Size", number(result.num_bytes), result.num_bytes === 1 ? " byte" : " bytes", size),
  );
}

/** The probability of the whole text, given the context before it if there is one. */
function odds(nats) {
  return element("span", {}, "Probability of exactly this text: 1 in ", ...times(-nats), ".");
}

function surprises(scored, map) {
  const strongest = scored.cells
    .map(({ bits }, index) => ({ bits, index }))
    .sort((a, b) => b.bits - a.bits || a.index - b.index)
    .slice(0, NUM_SURPRISES);
  const text = (from, to) => scored.cells
    .slice(Math.max(from, 0), to)
    .map((cell) => inline(cell, scored.bytes))
    .join("");
  const entry = ({ bits, index }) => element(
    "li",
    {},
    element(
      "button",
      { type: "button", class: "link snippet", translate: "no", onclick: () => map.select(map.unitAt(scored.cells[index].start)) },
      element("span", { class: "before" }, text(index - CONTEXT_CHARACTERS, index)),
      element("mark", {}, text(index, index + 1).trim() || "␣"),
      element("span", {}, text(index + 1, index + CONTEXT_CHARACTERS)),
    ),
    element("span", { class: "bits" }, `${fixed(bits, 1)} bits`),
  );
  return element(
    "section",
    { class: "surprises" },
    element("h4", {}, "Most surprising"),
    element("ol", {}, ...strongest.map(entry)),
  );
}

function table(scored) {
  const heads = ["#", "Character", "Bytes", "Bits", "Rank", "Entropy", "Likeliest"];
  const body = element("tbody");
  const total = scored.cells.length;
  const more = element("button", { type: "button", onclick: () => extend() }, "");
  const extend = () => {
    const from = body.rows.length;
    const to = Math.min(from + ROWS_AT_ONCE, total);
    for (let index = from; index < to; index++) body.append(tableRow(scored, index));
    more.hidden = to === total;
    more.textContent = `Show ${Math.min(ROWS_AT_ONCE, total - to)} more of ${number(total)}`;
  };
  const wide = element(
    "div",
    { class: "scroll", role: "region", tabindex: "0", "aria-label": `Characters of ${scored.name}` },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
      body,
    ),
  );
  const details = element("details", { class: "as-table" }, element("summary", {}, "As a table"), wide, more);
  // Long texts make long tables, which are built when they are opened.
  details.addEventListener("toggle", () => { if (body.rows.length === 0) extend(); });
  return details;
}

/** One sentence on model, time and context, and the comparison of two texts. */
export function summary(scored, { model, timings_ms: timings, batch }, context) {
  const others = batch.texts > scored.length ? `, in a micro-batch of ${count(batch.texts, "text")}` : "";
  const how = element(
    "p",
    { class: "how" },
    `Scored by ${model.name}${model.is_demo ? " (the small demo model)" : ""} in ${duration(timings.total)}`,
    `, ${duration(timings.compute)} of it computing${others}`,
    context === "" ? "." : `, after a context of ${count([...context].length, "character")}.`,
  );
  return scored.length === 2 ? [comparison(...scored), how] : [how];
}

function comparison(a, b) {
  const isByCharacter = haveOtherScripts(a.result, b.result);
  const mean = isByCharacter ? a.bitsPerCharacter - b.bitsPerCharacter : a.result.bits_per_byte - b.result.bits_per_byte;
  const whole = a.result.log_likelihood_nats - b.result.log_likelihood_nats;
  if (Math.abs(mean) < 0.0005 && Math.abs(whole) < 0.005) {
    return element("p", { class: "verdict" }, "The model finds both equally likely.");
  }
  const better = mean < 0 ? a : b;
  const likelier = whole > 0 ? a : b;
  const named = ({ name }) => element("strong", {}, `the ${name.toLowerCase()}`);
  const [shorter, longer] = [a.bytes.length, b.bytes.length].sort((x, y) => x - y);
  return element(
    "p",
    { class: "verdict" },
    isByCharacter ? "The texts are in scripts of different sizes, so compare characters: per character, " : "Per byte, ",
    named(better),
    ` is more predictable by ${fixed(Math.abs(mean), 3)} bits. As a whole, `,
    ...(likelier === better ? ["it"] : [named(likelier)]),
    " is about ",
    ...times(Math.abs(whole)),
    " times as likely.",
    longer > MUCH_LONGER * shorter ? " Their lengths differ much, and the first bytes of a text cost more." : "",
  );
}

/** Whether texts have so different bytes per character that bits per byte do not compare. */
function haveOtherScripts(a, b) {
  if (a.num_chars === null || b.num_chars === null) return false;
  const ratio = (a.num_bytes / a.num_chars) / (b.num_bytes / b.num_chars);
  return Math.max(ratio, 1 / ratio) > OTHER_SCRIPT;
}

/** A factor between two probabilities. */
function times(nats) {
  const factor = Math.exp(nats);
  if (factor < PLAIN_ODDS) return [number(factor, factor < 10 ? 1 : 0)];
  return ["10", element("sup", {}, number(Math.round(nats / Math.LN10)))];
}

/** The sentence that a screen reader speaks when the scores are there. */
export function announcement(scored) {
  return scored
    .map(({ name, result, cells, bytes }) => {
      const worst = cells.reduce((most, cell) => (cell.bits > most.bits ? cell : most));
      return `${name}: ${fixed(result.bits_per_byte, 2)} bits per byte, ` +
        `most surprising ${spoken(worst, bytes)} with ${fixed(worst.bits, 1)} bits.`;
    })
    .join(" ");
}
