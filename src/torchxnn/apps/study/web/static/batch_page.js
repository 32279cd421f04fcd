/** What the pages of all tasks share: asking for the batch, loading its pictures, saving, handing in. */

import { fill } from "./batch.js";
import { make } from "./dom.js";
import { watchFocus } from "./hand.js";
import { preload } from "./preload.js";
import { Queue, pause } from "./queue.js";

export const at = (id) => document.getElementById(id);
const main = at("main");
export const position = Number(main.dataset.position);
const url = `${main.dataset.root}api/stages/${position}`;

/** Where a path that the server gave lies for this page, whatever a proxy did to it. */
const seen = (path) => main.dataset.root + path;

/**
 * Ask again, with growing pauses, until the server answers; null if it refuses or leads elsewhere.
 *
 * @param {string} path
 * @param {RequestInit} options
 * @param {() => void} onFailure before each further attempt
 * @param {(status: number, said: any) => void} onRefused it will never do it
 */
async function persist(path, options, onFailure, onRefused) {
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
        onRefused(answer.status, said);
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

/** All pictures of a batch: a list of {id, picture, heatmap, features, group}. */
const pictures = (content) => [...(content.learned ?? []), ...content.images];

/** The page of a batch; those of the tasks say in `begin` what is shown once all is loaded. */
export class BatchPage {
  /** Ask for the batch, load its pictures, and build the page. */
  static async open(Kind) {
    // the page itself explains what is wrong
    const reload = () => location.reload();
    const content = await persist(url, { headers: { Accept: "application/json" } }, () => {}, reload);
    if (content) await new Kind(content).start();
  }

  constructor(content) {
    this.content = content;
    this.texts = content.texts;
    for (const image of pictures(content)) {
      image.picture = seen(image.picture);
      image.heatmap = image.heatmap && seen(image.heatmap);
      for (const feature of image.features) feature.overlay &&= seen(feature.overlay);
    }
    this.hand = matchMedia("(pointer: coarse)").matches ? "touch" : "mouse";
    this.queue = new Queue({
      url: `${url}/events`,
      csrf: content.csrf,
      key: `xnn/${content.csrf.slice(0, 16)}/${position}`,
      onState: (state) => this.say(state),
      onRefused: (status, answer) => this.refused(status, answer),
    });
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
    this.#watchHands();
    if (this.content.hand) watchFocus(this.queue);
    await this.#load();
    this.begin();
    at("work").hidden = false;
  }

  /** Remember what was used last: "mouse", "touch", "pen" or "keyboard". */
  #watchHands() {
    const note = (hand) => (this.hand = hand || this.hand);
    addEventListener("pointerdown", (event) => note(event.pointerType), true);
    addEventListener("keydown", () => note("keyboard"), true);
    // a click that no pointer made: a key, or a screen reader in place of one
    addEventListener("click", (event) => note(event.detail === 0 && "keyboard"), true);
  }

  async #load() {
    const urls = pictures(this.content).flatMap((image) => [
      image.picture,
      ...(image.heatmap ? [image.heatmap] : []),
      ...image.features.flatMap((feature) => feature.overlay ?? []),
    ]);
    const total = urls.length;
    const begin = performance.now();
    at("loading").hidden = false;
    at("loaded").max = total;
    let missing = urls;
    let before = 0;
    const count = (done) => {
      at("loaded").value = before + done;
      at("loading-text").textContent = fill(this.texts.loading, { done: before + done, total });
    };
    count(0);
    while ((missing = await preload(missing, count)).length) {
      before = total - missing.length;
      this.queue.add("image_error", null, { count: missing.length });
      await this.#askToRetry();
    }
    at("loading").hidden = true;
    this.queue.add("loaded", null, { count: total, ms: Math.round(performance.now() - begin) });
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

  /** Hand the batch in, once all that was done is saved. @param {HTMLButtonElement} button */
  async submit(button) {
    if (this.submitting) return;
    const label = button.textContent;
    this.submitting = true;
    button.setAttribute("aria-busy", "true");
    button.textContent = this.texts.submitting;
    this.draw();
    await this.queue.drain();
    if (this.queue.refused) return;
    const options = { method: "POST", headers: { "X-CSRF-Token": this.content.csrf } };
    const offline = () => this.say("offline");
    const refused = (status, answer) => this.refused(status, answer);
    const said = await persist(`${url}/submit`, options, offline, refused);
    if (said) {
      location.assign(seen(said.next));
      return;
    }
    this.submitting = false;
    button.removeAttribute("aria-busy");
    button.textContent = label;
    this.draw();
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
