/** Numbers and bytes as people read them. */

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

/** A count with its noun, in the plural where it must be. */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** A probability as a percentage that never claims 0 or 100 where it is neither. */
export function percent(probability) {
  const share = probability * 100;
  if (share > 0 && share < 0.1) return "<0.1%";
  if (share < 100 && share > 99.9) return ">99.9%";
  return `${number(share, share < 10 ? 1 : 0)}%`;
}

/** Milliseconds, or seconds from one on. */
export const duration = (ms) => (ms < 1000 ? `${number(ms)} ms` : `${number(ms / 1000, 1)} s`);

/** A byte in hexadecimal. */
export const hex = (byte) => byte.toString(16).toUpperCase().padStart(2, "0");

const NAMES = new Map([[0x20, "space"], [0x0a, "line feed"], [0x0d, "carriage return"], [0x09, "tab"]]);

/** An id of the model: a byte as its character or in hexadecimal, a special id below 0. */
export function idName(id) {
  if (id < 0) return `special ${id + 64}`;
  if (NAMES.has(id)) return NAMES.get(id);
  return id > 0x20 && id < 0x7f ? String.fromCharCode(id) : hex(id);
}
