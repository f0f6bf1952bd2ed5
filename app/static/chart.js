/** Draws small SVG charts from numbers. */

const NAMESPACE = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const HEIGHT = 48;

/** A line over time, oldest first, from 0 to the highest value. */
export function line(values, label) {
  const top = Math.max(...values, 1e-9);
  const step = WIDTH / Math.max(values.length - 1, 1);
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${y(value, top)}`);
  const area = `0,${HEIGHT} ${points.join(" ")} ${((values.length - 1) * step).toFixed(1)},${HEIGHT}`;
  return picture(label, shape("polygon", { class: "area", points: area }),
    shape("polyline", { class: "line", points: points.join(" ") }));
}

/** One bar per value, from left to right; room for `capacity` of them. */
export function bars(values, label, capacity) {
  const top = Math.max(...values, 1e-9);
  const width = WIDTH / capacity;
  const from = capacity - values.length;
  return picture(label, ...values.map((value, i) => shape("rect", {
    class: "column-bar",
    x: ((from + i) * width + 0.5).toFixed(1),
    y: y(value, top),
    width: Math.max(width - 1, 0.5).toFixed(1),
    height: (HEIGHT - Number(y(value, top))).toFixed(1),
  })));
}

const y = (value, top) => (HEIGHT - 1 - (value / top) * (HEIGHT - 3)).toFixed(1);

function picture(label, ...shapes) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  svg.append(...shapes);
  return svg;
}

/** An SVG element with `attributes`. */
export function shape(name, attributes) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
