/** A round of forward simulation: look at what the network said, then say what it will say. */

import { AnswerPage, letter } from "./answer_page.js";
import { fill } from "./batch.js";
import { at } from "./batch_page.js";
import { make } from "./dom.js";

class ForwardSimulation extends AnswerPage {
  build() {
    const { texts, content } = this;
    const begun = [...this.answers.values()].some((answer) => answer !== null);
    const sorted = [...content.learned].sort((a, b) => a.answer - b.answer);
    this.learned = make(
      "details",
      { class: "learned", open: true },
      make("summary", {}, texts.learn),
      make("p", {}, texts.learn_hint),
      this.list(sorted, (image, number) => this.told(image, number)),
    );
    const forward = make("button", { class: "primary", type: "button" }, texts.go_to_new);
    const begin = make("p", {}, forward);
    this.choices = new Map();
    this.feedback = new Map();
    const heading = make("h2", { tabIndex: -1 }, texts.new);
    this.fresh = make(
      "section",
      { hidden: !begun },
      heading,
      make("p", {}, texts.new_hint),
      this.list(content.images, (image, number) => this.#ask(image, number)),
      this.#makeDock(),
    );
    begin.hidden = begun;
    forward.addEventListener("click", () => {
      this.queue.add("phase", null, { name: "predict" });
      begin.hidden = true;
      this.learned.open = false;
      this.fresh.hidden = false;
      heading.focus();
    });
    this.learned.addEventListener("toggle", () =>
      this.queue.add("phase", null, { name: "learned", on: this.learned.open }),
    );
    at("work").replaceChildren(this.learned, begin, this.fresh);
  }

  /** A new picture with a button for each answer. */
  #ask(image, number) {
    const { texts, content } = this;
    const label = fill(texts.answers_of, { number });
    const buttons = Array.from({ length: content.answers }, (_, n) => {
      const words = fill(texts.answer_of, { number, answer: letter(n + 1) });
      const made = make("button", { type: "button", "aria-label": words }, letter(n + 1));
      made.addEventListener("click", () => this.answer(image.id, n + 1, "button"));
      return made;
    });
    this.choices.set(image.id, buttons);
    const row = make("div", { class: "choices", role: "group", "aria-label": label }, ...buttons);
    const feedback = make("p", { class: "feedback", role: "status", hidden: true });
    this.feedback.set(image.id, feedback);
    return [this.explained(image, number), row, feedback];
  }

  #makeDock() {
    this.left = make("p", { id: "left" });
    this.done = make("button", { class: "primary", type: "button" }, this.texts.done);
    this.done.addEventListener("click", () => this.submit(this.done));
    return make("div", { class: "dock" }, make("div", { class: "end" }, this.left, this.done));
  }

  draw() {
    const { texts } = this;
    for (const image of this.content.images) {
      const given = this.answers.get(image.id);
      this.choices.get(image.id).forEach((button, n) =>
        button.setAttribute("aria-pressed", String(given === n + 1)),
      );
      if (image.answer !== null && given !== null) {
        const words = given === image.answer ? texts.right : texts.wrong;
        const said = fill(words, { answer: letter(image.answer) });
        const line = this.feedback.get(image.id);
        line.hidden = false;
        line.classList.toggle("good", given === image.answer);
        if (line.textContent !== said) line.textContent = said;
      }
    }
    const left = [...this.answers.values()].filter((answer) => answer === null).length;
    this.left.textContent = left ? fill(texts.missing, { left }) : "";
    this.done.disabled = left > 0;
  }
}

AnswerPage.open(ForwardSimulation);
