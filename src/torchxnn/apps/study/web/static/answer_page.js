/** What the pages of forward simulation and of the odd cue share: pictures and answers to them. */

import { fill } from "./batch.js";
import { BatchPage } from "./batch_page.js";
import { makeMap } from "./cards.js";
import { openZoom } from "./dialogs.js";
import { make } from "./dom.js";

/** The letter of an answer. @param {number} answer from 1 */
export const letter = (answer) => String.fromCharCode(64 + answer);

export class AnswerPage extends BatchPage {
  constructor(content) {
    super(content);
    this.answers = new Map(content.images.map((image) => [image.id, image.group]));
    for (const [id, group] of this.queue.moves) this.answers.set(id, group);
  }

  begin() {
    this.build();
    this.draw();
  }

  // --- pictures

  /** A list of pictures, laid out by how many there are of each. */
  list(images, makeItem) {
    const most = Math.max(0, ...images.map((image) => this.#count(image)));
    const kind = most === 1 ? "plain" : most === 2 ? "one" : "many";
    const items = images.map((image, n) => make("li", { "data-id": image.id }, ...makeItem(image, n + 1)));
    return make("ul", { class: `shown ${kind}` }, ...items);
  }

  #count(image) {
    return 1 + (image.heatmap ? 1 : 0) + image.features.length;
  }

  /** A picture and all that explains it, side by side. */
  explained(image, number) {
    const { texts } = this;
    const alt = fill(texts.picture, { number });
    const enlarge = make(
      "button",
      { class: "enlarge", type: "button", "aria-label": fill(texts.zoom, { number }) },
      make("img", { src: image.picture, alt: "" }),
    );
    enlarge.addEventListener("click", async () => {
      this.queue.add("zoom", image.id, { on: true });
      await openZoom(image, number, texts);
      this.queue.add("zoom", image.id, { on: false });
    });
    const row = make("div", { class: "row" }, make("figure", {}, enlarge));
    row.style.setProperty("--pictures", String(this.#count(image)));
    if (image.heatmap) {
      const words = fill(texts.heatmap_of, { number });
      row.append(make("figure", {}, make("img", { src: image.heatmap, alt: words })));
    }
    row.append(...image.features.map((feature, n) => makeMap(n + 1, feature, texts, alt)));
    return row;
  }

  /** What the network said of a picture, above the picture. */
  told(image, number) {
    const words = fill(this.texts.learned, { answer: letter(image.answer) });
    return [make("p", { class: "said" }, words), this.explained(image, number)];
  }

  // --- answers

  /** Keep an answer to a picture. */
  answer(id, group, how) {
    if (this.answers.get(id) === group) return;
    this.answers.set(id, group);
    this.queue.add("move", id, { group, how, by: this.hand });
    this.draw();
  }
}
