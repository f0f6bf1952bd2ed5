/** Turns results into files: CSV, JSON, SVG, PNG and HTML. Nothing leaves the browser. */

import { MAX_LEVEL, RANK_CLASSES, rankClass } from "./scales.js";
import { base64, isUtf8 } from "./editor.js";
import { drawing, inline } from "./scores.js";

/** Browsers draw no canvas that is larger. */
const MAX_CANVAS_PX = 16_000;
const PADDING_PX = 16;
/** Tenths of a pixel. */
const round = (value) => Math.round(value * 10) / 10;

const HEADS = ["text", "unit", "start", "end", "bits", "bits_per_byte", "highest_rank", "rank_class", "entropy_bits"];
const UNIT = HEADS.indexOf("unit");

/** One row per unit of each text, after a row of names. */
export function table(columns) {
  const rows = columns.flatMap(({ scored, view }) => view.units.map((unit) => row(scored, unit)));
  return [HEADS, ...rows];
}

function row(scored, { start, end, from, to, bits }) {
  const positions = Array.from({ length: end - start }, (_, i) => start + i);
  const rank = positions.reduce((most, at) => Math.max(most, scored.rank(at)), 1);
  const entropy = positions.reduce((sum, at) => sum + scored.entropy(at), 0);
  const text = scored.cells.slice(from, to).map((cell) => cell.text ?? inline(cell, scored.bytes)).join("");
  return [scored.name, text, start, end, bits.toFixed(4), (bits / (end - start)).toFixed(4), rank,
    RANK_CLASSES[rankClass(rank)].name, entropy.toFixed(4)];
}

/** RFC 4180. */
export const csv = (rows) => asText(rows, FORMULA).map((cells) => `${cells.map(quoted).join(",")}\r\n`).join("");

const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/** For a spreadsheet: cells of one line each, between tabs. */
export const tsv = (rows) => asText(rows, PASTED)
  .map((cells) => cells.map((cell) => quoted(String(cell).replace(/[\t\r\n]/g, " "))).join("\t")).join("\n");

/** What a spreadsheet would evaluate, which texts of strangers must not reach. */
const FORMULA = /^[=+\-@]./su;
/** The same for a pasted cell. A spreadsheet also hides an apostrophe at the beginning of a cell. */
const PASTED = /^(?:[=+\-@].|')/su;

/** The rows with an apostrophe before each unit that matches `pattern`: it makes a cell a text. */
const asText = (rows, pattern) => rows.map((cells) =>
  cells.map((cell, column) => (column === UNIT && pattern.test(cell) ? `'${cell}` : cell)));

/** The texts with the results as the API gave them, and the context before them if there was one. */
export function json(columns, { model, context }) {
  const texts = columns.map(({ scored: { name, bytes, result } }) => ({
    name,
    ...(isUtf8(bytes) ? { text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes) } : { text_b64: base64(bytes) }),
    result,
  }));
  return JSON.stringify({ model, ...(context ? { context } : {}), texts });
}

/** The map as it stands on the page, as an SVG picture. */
export function svg({ map }) {
  const { width, height, boxes, colours } = picture(map);
  const parts = boxes.map(({ x, y, width: w, height: h, level, label, size, baseline, room }) => {
    const bar = (level / MAX_LEVEL) * room;
    return `<rect x="${x}" y="${y}" width="${w}" height="${round(h - room)}" fill="${colours.back[level]}"/>` +
      `<rect x="${x}" y="${round(y + h - bar)}" width="${w}" height="${round(bar)}" fill="${colours.tick}"/>` +
      `<text x="${x}" y="${baseline}" font-size="${size}" fill="${colours.ink[level]}">${escaped(label)}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ` +
    `font-family="${escaped(colours.font)}" xml:space="preserve"><rect width="100%" height="100%" fill="${colours.paper}"/>` +
    `${parts.join("")}</svg>\n`;
}

/** The same as a PNG, at the resolution of the screen; null where it is too large for a canvas. */
export function png({ map }) {
  const { width, height, boxes, colours } = picture(map);
  const scale = Math.max(devicePixelRatio, 2);
  if (Math.max(width, height) * scale > MAX_CANVAS_PX) return Promise.resolve(null);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.fillStyle = colours.paper;
  pen.fillRect(0, 0, width, height);
  for (const { x, y, width: w, height: h, level, label, size, baseline, room } of boxes) {
    const bar = (level / MAX_LEVEL) * room;
    pen.fillStyle = colours.back[level];
    pen.fillRect(x, y, w, h - room);
    pen.fillStyle = colours.tick;
    pen.fillRect(x, y + h - bar, w, bar);
    pen.fillStyle = colours.ink[level];
    pen.font = `${size}px ${colours.font}`;
    pen.fillText(label, x, baseline);
  }
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
}

/** Where the browser has laid out each character, so that lines and directions of writing are kept. */
function picture(heatMap) {
  const { map, nodes } = heatMap;
  // Lines off the screen have no true places otherwise.
  map.classList.add("whole");
  const frame = map.getBoundingClientRect();
  const boxes = nodes.flatMap((node) => box(node, frame));
  const colours = palette(map);
  map.classList.remove("whole");
  return { width: Math.ceil(frame.width), height: Math.ceil(frame.height) + PADDING_PX, boxes, colours };
}

function box(node, frame) {
  const rect = node.getClientRects()[0];
  if (!rect) return [];
  const style = getComputedStyle(node);
  const size = parseFloat(style.fontSize);
  const room = round(size * 0.5);
  return [{
    x: round(rect.left - frame.left),
    y: round(rect.top - frame.top),
    width: round(rect.width),
    height: round(rect.height),
    level: Number(/\bl(\d+)/.exec(node.className)[1]),
    label: node.textContent.replace(/[\t\n\r]/g, ""),
    size,
    room,
    baseline: round(rect.top - frame.top + parseFloat(style.paddingTop) + size * 0.95),
  }];
}

/** The colours of the theme as the page shows them. */
function palette(map) {
  const levels = Array.from({ length: MAX_LEVEL + 1 }, (_, level) => {
    const sample = document.createElement("span");
    sample.className = `c l${level}`;
    map.append(sample);
    const { color, backgroundColor } = getComputedStyle(sample);
    sample.remove();
    return { ink: color, back: backgroundColor };
  });
  const root = getComputedStyle(map);
  const tick = document.createElement("span");
  tick.className = "tick-sample";
  map.append(tick);
  const colours = {
    ink: levels.map(({ ink }) => ink),
    back: levels.map(({ back }) => (back === "rgba(0, 0, 0, 0)" ? root.backgroundColor : back)),
    tick: getComputedStyle(tick).color,
    paper: root.backgroundColor,
    font: root.fontFamily,
  };
  tick.remove();
  return colours;
}

/** A page of its own, which needs nothing else and may load nothing. */
export function html(columns, { model, context, caption, legend }) {
  const colours = palette(columns[0].map.map);
  const levels = colours.back.map((back, i) => `.l${i}{background:${back};color:${colours.ink[i]};border-bottom-width:${(i / 3).toFixed(1)}px}`);
  const style = `body{margin:2rem auto;max-width:60rem;padding:0 1rem;background:${colours.paper};color:${colours.ink[0]};font:16px/1.5 system-ui,sans-serif}` +
    `.map{padding:1rem;line-height:2.1;font-family:ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}` +
    `.c{border-bottom:0 solid ${colours.tick};padding:.15em 0}.box{font-size:.75em}${levels.join("")}`;
  const scale = legend.map(({ level, label }) => `<span class="c l${level}">&nbsp;${escaped(label)}&nbsp;</span>`).join("");
  const articles = columns.map(({ scored, view }) => `<h2>${escaped(scored.name)}</h2><p>${scored.result.bits_per_byte.toFixed(3)} bits per byte, ` +
    `${scored.result.log_likelihood_nats.toFixed(2)} nats, ${scored.bytes.length} bytes</p><div class="map" dir="auto">${marked(scored, view)}</div>`);
  const before = context ? `<h2>Context</h2><p>It comes before the text and has no score.</p><div class="map" dir="auto">${escaped(context)}</div>` : "";
  return `<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">` +
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"><title>evascore: scores</title>` +
    `<style>${style}</style></head><body><main><h1>Scores</h1><p>Scored by ${escaped(model.name)}. ${escaped(caption)}.</p><p>${scale}</p>` +
    `${before}${articles.join("")}</main></body></html>\n`;
}

function marked(scored, { units, levels }) {
  return units.map(({ from, to, bits }, index) => scored.cells.slice(from, to).map((cell) => {
    const { label, isBox, hasBreak } = drawing(cell, scored.bytes);
    return `<span class="c l${levels[index]}${isBox ? " box" : ""}" title="${bits.toFixed(2)} bits">${escaped(label)}</span>${hasBreak ? "<br>" : ""}`;
  }).join("")).join("");
}

const escaped = (text) => text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, "\ufffd").replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);

/** Let the reader save `content` under `name`. */
export function download(content, name, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  [link.href, link.download] = [url, name];
  link.click();
  // The browser has taken the file by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
