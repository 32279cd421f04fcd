/** What the pages of forward simulation and of the odd cue share: loading, saving, pictures. */

import { fill } from "./batch.js";
import { makeMap } from "./cards.js";
import { openZoom } from "./dialogs.js";
import { make } from "./dom.js";
import { preload } from "./preload.js";
import { Queue, pause } from "./queue.js";

export const at = (id) => document.getElementById(id);
const main = at("main");
export const position = Number(main.dataset.position);
const url = `${main.dataset.root}api/stages/${position}`;

/** Where an address that the server gave lies for this page, whatever a proxy did to its path. */
const seen = (address) => main.dataset.root + address.slice(main.dataset.prefix.length + 1);

/** The letter of an answer. @param {number} answer from 1 */
export const letter = (answer) => String.fromCharCode(64 + answer);

/** Ask again, with growing pauses, until the server answers; null if another page is shown. */
async function persist(path, options, onFailure) {
  for (let failures = 0; ; ) {
    try {
      const answer = await fetch(path, options);
      const said = await answer.json().catch(() => ({}));
      if (answer.ok) return said;
      if (said.next) {
        location.replace(seen(said.next));
        return null;
      }
      if (answer.status < 500 && answer.status !== 429) {
        location.reload(); // the page itself explains what is wrong
        return null;
      }
    } catch {
      // no connection
    }
    failures += 1;
    onFailure();
    await new Promise((go) => setTimeout(go, pause(failures)));
  }
}

/** All pictures of a batch: a list of {id, picture, heatmap, features, answer, group}. */
const pictures = (content) => [...content.learned, ...content.images];

export class AnswerPage {
  /** Ask for the batch, load its pictures, and build the page. */
  static async open(Kind) {
    const content = await persist(url, { headers: { Accept: "application/json" } }, () => {});
    if (content) await new Kind(content).start();
  }

  constructor(content) {
    this.content = content;
    this.texts = content.texts;
    for (const image of pictures(content)) {
      image.picture = seen(image.picture);
      image.heatmap = image.heatmap && seen(image.heatmap);
      for (const feature of image.features) feature.overlay = seen(feature.overlay);
    }
    this.answers = new Map(content.images.map((image) => [image.id, image.group]));
    this.hand = matchMedia("(pointer: coarse)").matches ? "touch" : "mouse";
    this.queue = new Queue({
      url: `${url}/events`,
      csrf: content.csrf,
      key: `xnn/${content.csrf.slice(0, 16)}/${position}`,
      onState: (state) => this.say(state),
      onRefused: (status, answer) => this.refused(status, answer),
    });
    for (const [id, group] of this.queue.moves) this.answers.set(id, group);
  }

  async start() {
    this.queue.add("open");
    this.queue.add("device", null, {
      width: innerWidth,
      height: innerHeight,
      ratio: devicePixelRatio,
      pointer: matchMedia("(pointer: coarse)").matches ? "coarse" : "fine",
    });
    document.addEventListener("visibilitychange", () =>
      this.queue.add("visibility", null, { visible: document.visibilityState === "visible" }),
    );
    addEventListener("pointerdown", (event) => (this.hand = event.pointerType || this.hand), true);
    addEventListener("keydown", () => (this.hand = "keyboard"), true);
    await this.load();
    this.build();
    this.draw();
    at("work").hidden = false;
  }

  async load() {
    const urls = pictures(this.content).flatMap((image) => [
      image.picture,
      ...(image.heatmap ? [image.heatmap] : []),
      ...image.features.map((feature) => feature.overlay),
    ]);
    at("loading").hidden = false;
    at("loaded").max = urls.length;
    let missing = urls;
    let before = 0;
    const count = (done) => {
      at("loaded").value = before + done;
      const values = { done: before + done, total: urls.length };
      at("loading-text").textContent = fill(this.texts.loading, values);
    };
    count(0);
    while ((missing = await preload(missing, count)).length) {
      before = urls.length - missing.length;
      this.queue.add("image_error", null, { count: missing.length });
      await this.#askToRetry();
    }
    at("loading").hidden = true;
    this.queue.add("loaded", null, { count: urls.length });
  }

  #askToRetry() {
    const button = make("button", { type: "button" }, this.texts.retry);
    this.problem(this.texts.load_failed, button);
    return new Promise((go) =>
      button.addEventListener("click", () => {
        at("problem").hidden = true;
        go();
      }),
    );
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

  async submit(button) {
    if (this.submitting) return;
    this.submitting = true;
    button.setAttribute("aria-busy", "true");
    button.textContent = this.texts.submitting;
    await this.queue.drain();
    if (this.queue.refused) return;
    const headers = { "X-CSRF-Token": this.content.csrf };
    const options = { method: "POST", headers };
    const said = await persist(`${url}/submit`, options, () => this.say("offline"));
    if (said) location.assign(seen(said.next));
  }

  // --- words

  say(state) {
    at("status").dataset.state = state;
    at("status").textContent = this.texts[state];
  }

  announce(text) {
    at("announce").textContent = text;
  }

  problem(text, button) {
    at("problem").replaceChildren(make("p", {}, text), button);
    at("problem").hidden = false;
  }

  refused(status, answer) {
    if (answer.next) {
      location.replace(seen(answer.next));
      return;
    }
    const button = make("button", { type: "button", hidden: status === 403 }, this.texts.reload);
    button.addEventListener("click", () => location.reload());
    this.problem(answer.detail ?? this.texts.signed_out, button);
  }
}
