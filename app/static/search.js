/** Searches sorted lists by bisection. */

/** The index of the first item that `isBefore` does not hold for; it must hold for none after that. */
export function firstNot(items, isBefore) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBefore(items[middle])) low = middle + 1;
    else high = middle;
  }
  return low;
}
