/**
 * Dragging with a mouse, a pen or a finger.
 *
 * A mouse drags after a few pixels. A finger drags after it was held for a moment: before that, it
 * scrolls the page.
 */

import { make } from "./dom.js";

const PIXELS = 6;
const HOLD = 260; // milliseconds
const EDGE = 70; // pixels from the top or bottom within which the page scrolls

/**
 * @param {HTMLElement} area whose `.picture` elements can be dragged onto its `.zone` elements
 * @param {(id: string) => string[]} meant the pictures that move along with one
 * @param {(ids: string[], group: number|null) => void} drop
 */
export function enableDragging(area, meant, drop) {
  let held = null; // {id, x, y, pointer, touch, timer}
  let drag = null; // {ids, ghost, zone}
  let frame = 0;
  let last = { x: 0, y: 0 };

  area.addEventListener("pointerdown", (event) => {
    const picture = event.target.closest(".picture");
    if (!picture || event.button !== 0 || !event.isPrimary) return;
    const touch = event.pointerType === "touch";
    held = { picture, pointer: event.pointerId, touch, x: event.clientX, y: event.clientY };
    if (touch) held.timer = setTimeout(() => held && begin(held.x, held.y), HOLD);
  });

  addEventListener("pointermove", (event) => {
    if (!held || event.pointerId !== held.pointer) return;
    const far = Math.hypot(event.clientX - held.x, event.clientY - held.y) > PIXELS;
    if (!drag && far) {
      if (held.touch) return forget();
      begin(event.clientX, event.clientY);
    }
    if (drag) follow(event.clientX, event.clientY);
  });

  addEventListener("pointerup", (event) => {
    if (!held || event.pointerId !== held.pointer) return;
    if (drag) {
      const { ids, zone } = drag;
      swallowClick();
      forget();
      if (zone) drop(ids, zone.dataset.group === "0" ? null : Number(zone.dataset.group));
    } else forget();
  });
  addEventListener("pointercancel", forget);
  addEventListener("keydown", (event) => event.key === "Escape" && drag && forget());
  area.addEventListener("dragstart", (event) => event.preventDefault());
  area.addEventListener("contextmenu", (event) => {
    if (held?.touch) event.preventDefault();
  });
  // while a finger drags, it must not scroll; only a listener that may refuse can say so
  area.addEventListener("touchmove", (event) => drag && event.preventDefault(), { passive: false });

  function begin(x, y) {
    const card = held.picture.closest(".card");
    const ids = meant(card.dataset.id);
    const ghost = make("div", { class: "ghost" }, held.picture.querySelector("img").cloneNode());
    if (ids.length > 1) ghost.append(make("b", {}, String(ids.length)));
    document.body.append(ghost);
    document.body.classList.add("dragging");
    const cards = [...area.querySelectorAll(".card")].filter((c) => ids.includes(c.dataset.id));
    for (const each of cards) each.classList.add("dragged");
    drag = { ids, ghost, cards, zone: null };
    follow(x, y);
    frame = requestAnimationFrame(scroll);
  }

  function follow(x, y) {
    last = { x, y };
    drag.ghost.style.transform = `translate(${x - 52}px, ${y - 52}px)`;
    const zone = document.elementFromPoint(x, y)?.closest(".zone, .put button[data-group]") ?? null;
    if (zone === drag.zone) return;
    drag.zone?.classList.remove("target");
    zone?.classList.add("target");
    drag.zone = zone;
  }

  function scroll() {
    if (!drag) return;
    const below = last.y - (innerHeight - EDGE);
    const above = EDGE - last.y;
    if (below > 0) scrollBy(0, Math.min(18, below / 3));
    else if (above > 0) scrollBy(0, -Math.min(18, above / 3));
    frame = requestAnimationFrame(scroll);
  }

  function forget() {
    clearTimeout(held?.timer);
    cancelAnimationFrame(frame);
    if (drag) {
      drag.ghost.remove();
      drag.zone?.classList.remove("target");
      for (const card of drag.cards) card.classList.remove("dragged");
      document.body.classList.remove("dragging");
    }
    held = drag = null;
  }
}

/** The click that ends a drag selects nothing. */
function swallowClick() {
  const stop = (event) => {
    event.stopPropagation();
    event.preventDefault();
  };
  addEventListener("click", stop, { capture: true, once: true });
  setTimeout(() => removeEventListener("click", stop, { capture: true }), 0);
}
