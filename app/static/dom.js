/** Makes elements from plain values; text is never read as markup. */

/** An element with `properties` (attributes; `class`, `on…` and `dataset` too) and children. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === false || value == null) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) if (child != null) made.append(child);
  return made;
}

/** Show `node`, or hide it. */
export const show = (node, isShown) => { node.hidden = !isShown; };
