/** Windows over the page: one picture large, several side by side, help. Escape closes them. */

import { fill, inOrder } from "./batch.js";
import { makeMap } from "./cards.js";
import { make } from "./dom.js";

/** Open a dialog; resolves when it is closed, with the focus where it was. */
function open(title, texts, ...content) {
  const close = make("button", { type: "button" }, texts.close);
  const heading = make("h2", { id: "dialog-title" }, title);
  const dialog = make(
    "dialog",
    { "aria-labelledby": "dialog-title" },
    make("header", {}, heading, close),
    ...content,
  );
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((done) =>
    dialog.addEventListener("close", () => {
      dialog.remove();
      done();
    }),
  );
}

/** How to move pictures. */
export function openHelp(texts) {
  const lines = texts.help_lines.map((line) => make("li", {}, line));
  return open(texts.help_title, texts, make("ul", {}, ...lines));
}

function captioned(src, caption, alt) {
  return make("figure", {}, make("figcaption", {}, caption), make("img", { src, alt }));
}

/** One picture and all that the stage shows of it, large. */
export function openZoom(image, number, texts, byWeight) {
  const alt = fill(texts.picture, { number });
  const parts = [captioned(image.picture, texts.original, alt)];
  if (image.heatmap) parts.push(captioned(image.heatmap, texts.heatmap, alt));
  for (const n of inOrder(image.features, Array.from(image.features, (_, at) => at + 1), byWeight)) {
    parts.push(makeMap(n, image.features[n - 1], texts, alt));
  }
  const kind = parts.length === 1 ? "large single" : "large";
  return open(alt, texts, make("div", { class: kind }, ...parts));
}

/**
 * Several pictures with all their heatmaps side by side, every heatmap on or off.
 *
 * @param {{image: object, number: number}[]} chosen
 * @param {number} features
 * @param {object} texts
 * @param {(feature: number, on: boolean) => void} onFeature
 */
export function openCompare(chosen, features, texts, onFeature) {
  if (!features) return open(texts.compare_title, texts, pairs(chosen, texts));
  const on = new Set(Array.from({ length: features }, (_, at) => at + 1));
  const table = make("table", { class: "compared" });
  const tools = make("div", { class: "tools" });
  for (const feature of on) {
    const button = make(
      "button",
      { type: "button", class: "switch", "aria-pressed": "true", "aria-label": fill(texts.feature, { feature }) },
      `H${feature}`,
    );
    button.addEventListener("click", () => {
      if (!on.delete(feature)) on.add(feature);
      button.setAttribute("aria-pressed", String(on.has(feature)));
      onFeature(feature, on.has(feature));
      draw();
    });
    tools.append(button);
  }
  function draw() {
    const shown = [...on].sort((a, b) => a - b);
    const rows = chosen.map(({ image, number }) => {
      const alt = fill(texts.picture, { number });
      const head = make("th", { scope: "row" }, make("span", { class: "number" }, alt));
      head.append(make("img", { src: image.picture, alt: "" }));
      const maps = shown.map((feature) =>
        make("td", {}, makeMap(feature, image.features[feature - 1], texts, alt)),
      );
      return make("tr", {}, head, ...maps);
    });
    table.replaceChildren(make("tbody", {}, ...rows));
  }
  draw();
  return open(texts.compare_title, texts, tools, make("div", { class: "scroll" }, table));
}

/** Pictures, each with its one heatmap if it has one. */
function pairs(chosen, texts) {
  const all = chosen.map(({ image, number }) => {
    const picture = captioned(image.picture, fill(texts.picture, { number }), "");
    const words = fill(texts.heatmap_of, { number });
    const heatmap = image.heatmap ? captioned(image.heatmap, words, "") : null;
    return make("div", {}, picture, heatmap);
  });
  return make("div", { class: "large pairs" }, ...all);
}
