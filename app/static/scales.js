/** Turns scores into the 13 levels of colour, for characters or for words. */

import { number } from "./format.js";
import { firstNot } from "./search.js";

/** The strongest of the levels, which begin at 0. */
export const MAX_LEVEL = 12;
/** Bits of one level. The smallest is taken that leaves 1 unit of 20 beyond the scale at most. */
const STEPS = [1, 2, 4, 8, 16, 32, 64];
const SHARE_WITHIN = 0.95;
/** Where half of a text is at this level and above, colours would hardly differ. */
const CROWDED_LEVEL = 9;
/** As expected is this level of surprise minus entropy, so that both directions have colours. */
const EXPECTED_LEVEL = 4;
/** GLTR's classes of ranks: the highest rank of each (Gehrmann et al. 2019, section 3). */
export const RANK_CLASSES = [
  { upTo: 1, name: "1", level: 0 },
  { upTo: 5, name: "2–5", level: 4 },
  { upTo: 20, name: "6–20", level: 8 },
  { upTo: Infinity, name: "over 20", level: 12 },
];

export const UNITS = { characters: "character", words: "word" };

/** The names of the scales, by key, for units called `noun`. */
export const scaleNames = (noun) => ({
  byte: "Bits per byte",
  unit: `Bits per ${noun}`,
  relative: "Relative within the text",
  rank: "Rank of the byte",
  excess: "Surprise minus entropy",
});

/** The class of a rank: an index of RANK_CLASSES. */
export const rankClass = (rank) => RANK_CLASSES.findIndex(({ upTo }) => rank <= upTo);

/**
 * Paint texts with one scale, so that equal colours mean equal values.
 *
 * @param {ScoredText[]} texts
 * @param {string} scale a key of `scaleNames`
 * @param {string} unitKind a key of UNITS
 * @returns {{views: object[], legend: object[], caption: string}} per text its units, their levels
 *   and the unit of each character; the legend as [{level, label}]
 */
export function paint(texts, scale, unitKind) {
  const noun = UNITS[unitKind];
  const units = texts.map((text) => text.units(unitKind));
  const { levels, legend, caption } = PAINTERS[scale](texts, units, noun);
  const views = texts.map((text, i) => ({ units: units[i], levels: levels[i], unitOf: owners(units[i], text), noun }));
  return { views, legend, caption };
}

/** The scale to begin with: bits per byte, or the relative one where those would be one dark block. */
export function bestScale(texts, unitKind) {
  const { views } = paint(texts, "byte", unitKind);
  const isCrowded = views.every(({ levels }) => median(levels) >= CROWDED_LEVEL && levels.length > 1);
  return isCrowded ? "relative" : "byte";
}

const PAINTERS = {
  byte: (texts, units, noun) => inBits(units, perByte, `Bits per byte of each ${noun}`),
  unit: (texts, units, noun) => inBits(units, ({ bits }) => bits, `Bits of each ${noun}, summed over its bytes`),
  relative: (texts, units, noun) => ({
    levels: units.map(percentileLevels),
    legend: everyLevel((level) => (level % 3 === 0 ? `${(level / MAX_LEVEL) * 100}%` : "")),
    caption: `Relative: how many of this text’s ${noun}s have fewer bits per byte`,
  }),
  rank: (texts, units, noun) => ({
    levels: units.map((list, i) => list.map((unit) => RANK_CLASSES[rankClass(highestRank(texts[i], unit))].level)),
    legend: RANK_CLASSES.map(({ level, name }) => ({ level, label: name })),
    caption: `Highest rank among the bytes of each ${noun}: 1 is the likeliest of the model’s 320 ids (256 bytes and 64 special ids)`,
  }),
  excess: (texts, units, noun) => ({
    levels: units.map((list, i) => list.map((unit) => clamped(Math.round(excess(texts[i], unit)) + EXPECTED_LEVEL))),
    legend: everyLevel((level) => {
      const label = String(level - EXPECTED_LEVEL).replace("-", "\u2212");
      return level === MAX_LEVEL ? `${label}+` : label;
    }),
    caption: `Bits per byte of each ${noun} minus the entropy there: 0 is as surprising as the model expected`,
  }),
};

function inBits(units, value, what) {
  const values = units.map((list) => list.map(value));
  const step = stepFor(values.flat());
  return {
    levels: values.map((list) => list.map((bits) => clamped(Math.round(bits / step)))),
    legend: everyLevel((level) => `${number(level * step)}${level === MAX_LEVEL ? "+" : ""}`),
    caption: `${what}: the stronger the colour and the taller the bar, the more surprised the model was`,
  };
}

function stepFor(values) {
  const sorted = Float64Array.from(values).sort();
  const high = sorted[Math.min(Math.floor(sorted.length * SHARE_WITHIN), sorted.length - 1)] ?? 0;
  return STEPS.find((step) => high <= (MAX_LEVEL + 0.5) * step) ?? STEPS.at(-1);
}

/** The level of each unit by its percentile: 13 classes of equal size; equal values stay together. */
function percentileLevels(units) {
  const values = units.map(perByte);
  const sorted = Float64Array.from(values).sort();
  return values.map((value) => {
    const middle = (firstNot(sorted, (other) => other < value) + firstNot(sorted, (other) => other <= value)) / 2;
    return clamped(Math.floor((middle / sorted.length) * (MAX_LEVEL + 1)));
  });
}

const perByte = ({ bits, start, end }) => bits / (end - start);

function excess(text, unit) {
  let entropy = 0;
  for (let at = unit.start; at < unit.end; at++) entropy += text.entropy(at);
  return (unit.bits - entropy) / (unit.end - unit.start);
}

function highestRank(text, { start, end }) {
  let highest = 1;
  for (let at = start; at < end; at++) highest = Math.max(highest, text.rank(at));
  return highest;
}

const clamped = (level) => Math.min(Math.max(level, 0), MAX_LEVEL);

const everyLevel = (label) => Array.from({ length: MAX_LEVEL + 1 }, (_, level) => ({ level, label: label(level) }));

const median = (values) => Float64Array.from(values).sort()[values.length >> 1];

/** The index of the unit that holds each character. */
function owners(units, text) {
  const unitOf = new Uint32Array(text.cells.length);
  units.forEach(({ from, to }, index) => unitOf.fill(index, from, to));
  return unitOf;
}
