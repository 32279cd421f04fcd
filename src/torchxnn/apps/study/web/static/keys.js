/** The keyboard on the pictures of a batch: from one to another, and what else a key does. */

/**
 * Arrows, Home and End move the focus among the pictures; every other key is the page's.
 *
 * @param {HTMLElement} area that holds the pictures
 * @param {() => string[]} order ids of the pictures in the order of the page
 * @param {(id: string) => HTMLElement} element of a picture
 * @param {(id: string) => void} focus on a picture
 * @param {(id: string, key: string) => boolean} act on another key; false if it has no meaning
 */
export function enableKeys(area, order, element, focus, act) {
  area.addEventListener("keydown", (event) => {
    const id = event.target.closest?.(".card")?.dataset.id;
    if (!id || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key.startsWith("arrow")) {
      const next = neighbouring(order(), id, key, element);
      if (next) focus(next);
    } else if (key === "home") focus(order()[0]);
    else if (key === "end") focus(order().at(-1));
    else if (!act(id, key)) return;
    event.preventDefault();
  });
}

/** Left and right go through all pictures; up and down to the nearest one above or below. */
function neighbouring(order, id, key, element) {
  if (key === "arrowleft" || key === "arrowright") {
    const after = document.documentElement.dir === "rtl" ? "arrowleft" : "arrowright";
    return order[order.indexOf(id) + (key === after ? 1 : -1)];
  }
  const middle = (each) => {
    const box = element(each).getBoundingClientRect();
    return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  };
  const here = middle(id);
  const sign = key === "arrowdown" ? 1 : -1;
  const distance = (each) => {
    const there = middle(each);
    const down = sign * (there.y - here.y);
    return down > 8 ? down + 2 * Math.abs(there.x - here.x) : Infinity;
  };
  const best = order.reduce((a, b) => (distance(b) < distance(a) ? b : a));
  return distance(best) < Infinity ? best : undefined;
}
