/** One picture as a card: the picture, its number, its buttons, and the heatmaps that are on. */

import { EYE, LENS, icon, make } from "./dom.js";
import { fill, inOrder, percent, side } from "./batch.js";

/** A heatmap with its contribution above it; a study may show one of them without the other. */
export function makeMap(feature, overlay, texts, alt) {
  const known = overlay.contribution !== null;
  const share = known ? percent(overlay.contribution) : "";
  const label = make("span", { class: `share ${known ? side(overlay.contribution) : ""}` });
  label.append(
    make("span", { "aria-hidden": "true" }, `H${feature} ${share}`.trim()),
    make(
      "span",
      { class: "unseen" },
      fill(known ? texts.contribution : texts.heatmap_of, { feature, share, number: feature }),
    ),
  );
  const map = overlay.overlay && make("img", { src: overlay.overlay, alt, draggable: false });
  return make("figure", {}, label, map);
}

export class Card {
  /**
   * @param {object} image as the server describes it
   * @param {number} number from 1
   * @param {object} texts
   * @param {{onSelect, onZoom, onOverlay}} handlers called with the id
   */
  constructor(image, number, texts, handlers) {
    Object.assign(this, { image, number, texts });
    const label = fill(texts.picture, { number });
    this.img = make("img", { src: image.picture, alt: "", draggable: false });
    this.picture = make("button", { class: "picture", type: "button", tabIndex: -1 }, this.img);
    this.picture.addEventListener("click", () => handlers.onSelect(image.id));
    this.zoom = make(
      "button",
      { type: "button", tabIndex: -1, "aria-label": fill(texts.zoom, { number }) },
      icon(LENS),
    );
    this.zoom.addEventListener("click", () => handlers.onZoom(image.id));
    this.eye = image.heatmap ? this.#makeEye(number, handlers) : null;
    this.maps = make("div", { class: "maps", hidden: true });
    const small = make("div", { class: "small" }, make("span", {}, String(number)), this.eye, this.zoom);
    this.element = make("li", { class: "card", "data-id": image.id }, this.picture, small, this.maps);
    this.picture.setAttribute("aria-label", label);
    this.picture.setAttribute("aria-pressed", "false");
  }

  #makeEye(number, { onOverlay }) {
    const label = fill(this.texts.show_heatmap, { number });
    const eye = make("button", { type: "button", tabIndex: -1, "aria-label": label }, icon(EYE));
    eye.addEventListener("click", () => onOverlay(this.image.id));
    return eye;
  }

  /** Buttons of the card that has the focus are reached with Tab, those of the others are not. */
  reach(yes) {
    for (const button of [this.picture, this.zoom, this.eye]) {
      if (button) button.tabIndex = yes ? 0 : -1;
    }
  }

  /** Show the state in words and looks. */
  show({ selected, group, overlay, features, byWeight, wrong }) {
    const { number, texts } = this;
    this.element.classList.toggle("wrong", wrong);
    this.element.classList.toggle("selected", selected);
    this.picture.setAttribute("aria-pressed", String(selected));
    const words = group === null ? texts.picture_free : texts.picture_in;
    this.picture.setAttribute("aria-label", fill(words, { number, group }));
    if (this.eye) {
      this.eye.setAttribute("aria-pressed", String(overlay));
      const source = overlay ? this.image.heatmap : this.image.picture;
      if (this.img.getAttribute("src") !== source) this.img.src = source;
    }
    this.#showMaps(inOrder(this.image.features, features, byWeight));
  }

  #showMaps(features) {
    const key = features.join();
    if (this.shown === key) return;
    this.shown = key;
    this.maps.hidden = !features.length;
    this.maps.dataset.count = String(features.length);
    this.maps.replaceChildren(
      ...features.map((n) => makeMap(n, this.image.features[n - 1], this.texts, "")),
    );
  }
}
