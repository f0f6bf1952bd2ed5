/** Formats numbers and bytes for people. */

const DIGITS = new Map();

/** A number with thousands separators and at most `digits` decimals. */
export function number(value, digits = 0) {
  if (!DIGITS.has(digits)) {
    DIGITS.set(digits, new Intl.NumberFormat("en", { maximumFractionDigits: digits }));
  }
  return DIGITS.get(digits).format(value);
}

/** A number with exactly `digits` decimals. */
export const fixed = (value, digits) => value.toFixed(digits).replace("-", "\u2212");

/** A measured value: one decimal where it is small enough to matter. */
export const measured = (value) => number(value, Math.abs(value) < 100 ? 1 : 0);

/** A count with its noun, in the plural unless it is 1. */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** A probability as a percentage, which shows 0 or 100 only if it is exact. */
export function percent(probability) {
  const share = probability * 100;
  if (share > 0 && share < 0.1) return "<0.1%";
  if (share < 100 && share > 99.9) return ">99.9%";
  return `${number(share, share < 10 || share > 99 ? 1 : 0)}%`;
}

/** A duration in milliseconds, or in seconds from 1 s on. */
export const duration = (ms) => (ms < 1000 ? `${number(ms)} ms` : `${number(ms / 1000, 1)} s`);

/** A byte in hexadecimal. */
export const hex = (byte) => byte.toString(16).toUpperCase().padStart(2, "0");

const NAMES = new Map([[0x20, "space"], [0x0a, "line feed"], [0x0d, "carriage return"], [0x09, "tab"]]);

/** The name of an id: a byte as its character or in hexadecimal; special ids are below 0. */
export function idName(id) {
  if (id < 0) return `special ${id + 64}`;
  if (NAMES.has(id)) return NAMES.get(id);
  return id > 0x20 && id < 0x7f ? String.fromCharCode(id) : hex(id);
}
