/** Holds the results on the page: their colours, the part on the screen, and what leaves the page. */

import { element, show } from "./dom.js";
import { differenceOf } from "./difference.js";
import { csv, download, html, json, png, svg, table, tsv } from "./exports.js";
import { linkTo } from "./keeping.js";
import { topOf } from "./overview.js";
import { Column, legend } from "./results.js";
import { bestScale, paint, scaleNames, UNITS } from "./scales.js";

const byId = (id) => document.getElementById(id);
const scaleChoice = byId("scale");
const unitChoice = byId("units");

/** Longer addresses are cut off by some programs that pass links on. */
const MAX_LINK_CHARACTERS = 32_000;

/** The columns that are shown; empty before the first result. */
let columns = [];
let model = null;
/** The texts and options that were scored, as a link keeps them; the editors may hold others by now. */
let asked = null;
/** Whether the reader chose the scale; else each result gets the one that fits it. */
let isChosen = false;
let painted = null;

/** Show scored texts side by side; `ofState` is what was asked for. */
export function showTexts(texts, ofModel, ofState) {
  model = ofModel;
  asked = ofState;
  if (!isChosen) scaleChoice.value = bestScale(texts, unitChoice.value);
  painted = paint(texts, scaleChoice.value, unitChoice.value);
  const shared = { isOneOfTwo: texts.length > 1, topBits: topOf(texts) };
  columns = texts.map((text, index) => new Column(text, painted.views[index], shared));
  byId("columns").replaceChildren(...columns.map(({ root }) => root));
  byId("columns").classList.toggle("two", columns.length > 1);
  byId("exported").textContent = "";
  show(byId("link-place"), false);
  showLegend();
  showDifference();
}

/** Offer the choices of colours and units, and the exports. */
export function startShowing() {
  painted = paint([], "byte", "characters");
  showLegend();
  scaleChoice.addEventListener("change", () => {
    isChosen = true;
    repaint();
  });
  unitChoice.addEventListener("change", repaint);
  byId("exports").addEventListener("click", ({ target }) => {
    if (target.dataset.export) take(target.dataset.export);
  });
  for (const event of ["scroll", "resize"]) addEventListener(event, followSoon, { passive: true });
}

function repaint() {
  const names = scaleNames(UNITS[unitChoice.value]);
  for (const option of scaleChoice.options) option.textContent = names[option.value];
  painted = paint(columns.map(({ scored }) => scored), scaleChoice.value, unitChoice.value);
  columns.forEach((column, index) => column.paint(painted.views[index]));
  showLegend();
}

function showLegend() {
  byId("caption").textContent = painted.caption;
  byId("legend").replaceChildren(...legend(painted.legend));
  followSoon();
}

function showDifference() {
  const made = columns.length === 2 ? differenceOf(columns) : null;
  byId("difference").replaceChildren(...(made ? [made] : []));
}

let isFollowing = false;

/** Mark once per frame what is on the screen. */
function followSoon() {
  if (isFollowing) return;
  isFollowing = true;
  requestAnimationFrame(() => {
    isFollowing = false;
    columns.forEach((column) => column.follow());
  });
}

async function take(kind) {
  if (kind === "link") await offerLink(await linkTo(asked));
  else if (kind === "copy") say(await copy(tsv(table(columns))) ? "Copied; paste it into a spreadsheet." : "The browser refused. Take CSV instead.");
  else say(await save(kind) ? `Saved by your browser.${partsIn(kind)}` : "The map is too tall for a PNG. Take SVG or HTML instead.");
}

/** Which parts of long texts a picture shows, as a sentence; "" if it shows everything. */
function partsIn(kind) {
  if (kind !== "svg" && kind !== "png") return "";
  const parts = columns.filter(({ map }) => map.part !== null).map(({ scored, map }) => `${scored.name}, ${map.part}`);
  return parts.length === 0 ? "" : ` A picture has only what the map shows: ${parts.join("; ")}.`;
}

async function save(kind) {
  if (kind === "csv") download(csv(table(columns)), "evascore.csv", "text/csv;charset=utf-8");
  if (kind === "json") download(json(columns, { model, context: asked.context }), "evascore.json", "application/json");
  if (kind === "html") download(html(columns, { model, context: asked.context, ...painted }), "evascore.html", "text/html;charset=utf-8");
  if (kind === "svg") columns.forEach((column, i) => download(svg(column), fileName(i, "svg"), "image/svg+xml"));
  if (kind !== "png") return true;
  const images = await Promise.all(columns.map(png));
  images.forEach((image, i) => { if (image) download(image, fileName(i, "png")); });
  return images.every((image) => image !== null);
}

const fileName = (index, ending) => (columns.length > 1 ? `evascore-${index + 1}.${ending}` : `evascore.${ending}`);

async function offerLink(address) {
  if (address.length > MAX_LINK_CHARACTERS) {
    say("The text is too long for a link. Save it as JSON instead.");
    return;
  }
  const isCopied = await copy(address);
  byId("link").value = address;
  show(byId("link-place"), true);
  say(`${isCopied ? "Copied. " : ""}The text is in the part after #, which browsers do not send.`);
}

/** Whether the text is in the clipboard now; browsers refuse it on plain HTTP from another machine. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

const say = (sentence) => { byId("exported").replaceChildren(element("span", {}, sentence)); };
