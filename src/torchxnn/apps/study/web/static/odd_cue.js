/** The odd cue: pictures come one after the other until somebody knows what the network looks at. */

import { AnswerPage } from "./answer_page.js";
import { fill } from "./batch.js";
import { at, position } from "./batch_page.js";
import { make } from "./dom.js";

const SEEN = 1; // the only answer that a picture has here: it was seen

class OddCue extends AnswerPage {
  build() {
    const { texts, content } = this;
    this.gallery = this.list(content.images, (image, number) => this.told(image, number));
    this.count = make("p", { id: "left" });
    this.next = make("button", { type: "button" }, texts.next);
    this.next.addEventListener("click", () => this.#showNext());
    this.known = make("button", { class: "primary", type: "button" }, texts.known);
    this.known.addEventListener("click", () => this.#answer());
    const end = make("div", { class: "end" }, this.count, this.next, this.known);
    this.dock = make("div", { class: "dock" }, end);
    at("work").replaceChildren(make("p", {}, texts.look_hint), this.gallery, this.dock);
    if (!this.#seen) this.#showNext();
  }

  get #seen() {
    return [...this.answers.values()].filter((answer) => answer === SEEN).length;
  }

  #showNext() {
    const image = this.content.images.find(({ id }) => this.answers.get(id) !== SEEN);
    if (!image) return;
    this.answer(image.id, SEEN, "button");
    const item = this.gallery.querySelector(`[data-id="${image.id}"]`);
    this.announce(item.querySelector(".said").textContent);
    if (this.#seen > 1) item.scrollIntoView({ block: "nearest" });
  }

  draw() {
    const { texts, content } = this;
    const [seen, total] = [this.#seen, content.images.length];
    for (const item of this.gallery.children) {
      item.hidden = this.answers.get(item.dataset.id) !== SEEN;
    }
    this.count.textContent = seen < total ? fill(texts.seen, { seen, total }) : texts.no_more;
    this.next.disabled = seen === total;
  }

  /** In the practice round the answer is told; else the next page asks for it. */
  #answer() {
    if (position > 0) {
      this.submit(this.known);
      return;
    }
    const onward = make("button", { class: "primary", type: "button" }, this.texts.go_on);
    onward.addEventListener("click", () => this.submit(onward));
    const told = make("p", { role: "status" }, this.texts.practised);
    this.dock.replaceChildren(told, make("div", { class: "end" }, onward));
    onward.focus();
  }
}

AnswerPage.open(OddCue);
