/**
 * The page of a batch: pictures are put into groups by dragging, by tapping and with the keyboard.
 *
 * The state is a `Batch`; every change is logged to a `Queue` and drawn anew.
 */

import { Batch, fill, misplaced, neighbour } from "./batch.js";
import { BatchPage, at } from "./batch_page.js";
import { Card } from "./cards.js";
import { openCompare, openHelp, openZoom } from "./dialogs.js";
import { make } from "./dom.js";
import { enableDragging } from "./drag.js";
import { PointerPath } from "./hand.js";
import { enableHover } from "./hover.js";
import { enableKeys } from "./keys.js";
import { makeTools } from "./tools.js";

class Page extends BatchPage {
  constructor(content) {
    super(content);
    this.images = new Map(content.images.map((image) => [image.id, image]));
    this.all = new Batch(content.images, content.groups);
    this.practice = content.parts.length > 0;
    if (content.hand) this.path = new PointerPath();
    for (const [id, group] of this.queue.moves) this.all.place(id, group);
  }

  /** The parts of the page: one, but for the practice round, which has one for each kind of help. */
  get parts() {
    const { content } = this;
    return this.practice ? content.parts : [{ stage: content.stage, images: this.all.ids }];
  }

  /** Show a part with what was placed of it before. */
  #open(part) {
    const { stage, images } = this.parts[part];
    const shown = images.map((id) => ({ id, group: this.all.group.get(id) }));
    this.part = part;
    this.stage = stage;
    this.batch = new Batch(shown, this.content.groups);
    const count = stage === "XNN" ? this.content.features : 0;
    this.features = new Set(Array.from({ length: count }, (_, n) => n + 1));
    this.byWeight = false;
    this.overlays = new Set();
    this.hovered = null;
    this.looked = false;
    this.wrong = null;
    this.focused = images[0];
    this.#build();
    this.draw();
  }

  begin() {
    const { group } = this.all;
    const first = this.parts.findIndex((part) => part.images.some((id) => group.get(id) === null));
    this.#open(first < 0 ? this.parts.length - 1 : first);
  }

  // --- the parts of the page

  #build() {
    const { texts, content } = this;
    const handlers = {
      onSelect: (id) => this.select(id),
      onZoom: (id) => this.zoom(id),
      onOverlay: (id) => this.toggleOverlay(id, "tap"),
    };
    this.cards = new Map(
      this.batch.ids.map((id) => [id, new Card(this.#shown(id), this.#number(id), texts, handlers)]),
    );
    const zones = make("div", { class: this.stage === "XNN" ? "zones many" : "zones" });
    zones.dataset.shows = this.stage === "XNN" ? content.shows : "";
    this.area = zones;
    this.zones = new Map();
    const groups = make("div", { class: "groups" });
    for (const group of [null, ...Array.from({ length: content.groups }, (_, n) => n + 1)]) {
      const zone = this.#makeZone(group);
      this.zones.set(group, zone);
      (group === null ? zones : groups).append(zone.element);
    }
    zones.append(groups);
    this.feedback = make("div", { class: "feedback", role: "status", hidden: true });
    this.tools = makeTools(this.stage, content, texts, this);
    const intro = make("p", {}, this.#introduction());
    at("work").replaceChildren(intro, this.tools.tools, zones, this.feedback, this.#makeDock());
    enableDragging(
      zones,
      (id) => this.batch.meant(id),
      (ids, group) => this.place(ids, group, "drag"),
    );
    enableKeys(
      zones,
      () => this.#order(),
      (id) => this.cards.get(id).element,
      (id) => this.cards.get(id)?.picture.focus(),
      (id, key) => this.#act(id, key),
    );
    zones.addEventListener("focusin", (event) => this.#focus(event));
    if (this.stage === "1-Heatmap") this.#watchHover(zones);
  }

  /** A picture with what this part shows of it. */
  #shown(id) {
    const image = this.images.get(id);
    const heatmap = this.stage === "1-Heatmap" ? image.heatmap : null;
    return { ...image, heatmap, features: this.stage === "XNN" ? image.features : [] };
  }

  /** Of a picture, from 1. */
  #number(id) {
    return this.batch.number(id);
  }

  #introduction() {
    const { texts, content, stage } = this;
    const only = stage === "XNN" && content.shows !== "both";
    const intro = texts.intro[only ? `XNN_${content.shows}` : stage];
    if (this.parts.length === 1) return intro;
    const part = { part: this.part + 1, parts: this.parts.length };
    return `${fill(texts.practice_part, part)} ${intro}`;
  }

  #makeZone(group) {
    const { texts } = this;
    const id = `zone-${group ?? 0}`;
    const count = make("span", {});
    const name = group === null ? texts.unplaced : fill(texts.group, { group });
    const heading = make("h2", { id }, `${name} `, count);
    const list = make("ul", { class: "cards", "aria-labelledby": id });
    const empty = make("p", { class: "empty" }, group === null ? texts.all_placed : texts.empty);
    const kind = group === null ? "zone tray" : "zone";
    const element = make("section", { class: kind, "data-group": String(group ?? 0) });
    element.append(heading, empty, list);
    let compare = null;
    if (group !== null && this.stage === "XNN") {
      const label = fill(texts.compare_group, { group });
      compare = make("button", { class: "compare", type: "button", "aria-label": label }, texts.see);
      compare.addEventListener("click", () => this.compare(this.batch.members(group)));
      heading.after(compare);
    }
    element.addEventListener("click", (event) => {
      if (!event.target.closest(".card, .compare") && this.batch.selected.size) {
        this.place(this.batch.ids.filter((each) => this.batch.selected.has(each)), group, "tap");
      }
    });
    return { element, count, list, empty, compare };
  }

  #makeDock() {
    const { texts, content } = this;
    this.putText = make("p", { id: "put-text" });
    const put = make("div", { class: "put", role: "group", "aria-labelledby": "put-text" });
    this.puts = [];
    for (let group = 1; group <= content.groups; group++) this.#addPut(put, group, String(group));
    this.#addPut(put, null, texts.put_back);
    this.left = make("p", { id: "left" });
    const words = this.practice ? texts.check : texts.submit;
    this.submitButton = make("button", { class: "primary", type: "button" }, words);
    this.submitButton.addEventListener("click", () => (this.practice ? this.check() : this.submit()));
    const end = make("div", { class: "end" }, this.left, this.submitButton);
    return make("div", { class: "dock" }, this.putText, put, end);
  }

  #addPut(put, group, text) {
    const button = make("button", { type: "button", "data-group": String(group ?? 0) }, text);
    if (group !== null) {
      button.setAttribute("aria-label", fill(this.texts.put_into, { group }));
    }
    button.addEventListener("click", () =>
      this.place(this.batch.ids.filter((id) => this.batch.selected.has(id)), group, "tap"),
    );
    put.append(button);
    this.puts.push(button);
  }

  /** Bring the page in line with the state. */
  draw() {
    const { batch, texts } = this;
    const { features, byWeight } = this;
    for (const [group, zone] of this.zones) {
      const ids = batch.members(group);
      const wanted = ids.map((id) => this.cards.get(id).element);
      if (wanted.some((element, n) => zone.list.children[n] !== element)) zone.list.append(...wanted);
      zone.count.textContent = `(${ids.length})`;
      zone.empty.hidden = ids.length > 0;
      if (zone.compare) zone.compare.disabled = !ids.length;
    }
    for (const [id, card] of this.cards) {
      const overlay = this.overlays.has(id) || this.hovered === id;
      const state = { selected: batch.selected.has(id), group: batch.group.get(id) };
      const wrong = this.wrong?.has(id) ?? false;
      card.show({ ...state, overlay, features, byWeight, wrong });
      card.reach(id === this.focused);
    }
    const count = batch.selected.size;
    this.putText.textContent = count ? fill(texts.put, { count }) : texts.put_none;
    for (const button of this.puts) button.disabled = !count;
    const { compare, sorter, everyOverlay, switches } = this.tools;
    compare.textContent = fill(texts.compare, { count });
    compare.disabled = !count;
    const left = batch.unplaced.length;
    this.left.textContent = left ? fill(texts.left, { left }) : "";
    this.submitButton.disabled = left > 0 || this.submitting === true;
    sorter?.setAttribute("aria-pressed", String(byWeight));
    everyOverlay?.setAttribute("aria-pressed", String(this.overlays.size === batch.ids.length));
    switches?.forEach((each, n) =>
      each.setAttribute("aria-pressed", String(this.features.has(n + 1))),
    );
  }

  // --- what people do

  place(ids, group, how) {
    const { batch, texts } = this;
    const tray = batch.unplaced;
    const keep = document.activeElement?.closest?.(".card")?.dataset.id;
    // a button of the dock that was pressed with a key is about to be switched off
    const dock = document.activeElement?.matches?.(".put button:focus-visible");
    const moved = ids.filter((id) => batch.place(id, group));
    for (const id of moved) this.all.place(id, group);
    if (moved.length) this.#forgetFeedback();
    const path = moved.length ? this.path?.take() : {};
    for (const id of moved) this.queue.add("move", id, { group, how, by: this.hand, ...path });
    for (const id of ids) batch.selected.delete(id);
    if (moved.includes(keep) && how === "keyboard" && tray.includes(keep)) {
      const rest = tray.filter((id) => id === keep || !moved.includes(id));
      this.focused = neighbour(rest, keep) ?? keep;
    }
    this.draw();
    // only who uses the keyboard follows the focus with the eyes
    if (keep) this.cards.get(this.focused).picture.focus({ preventScroll: how !== "keyboard" });
    else if (dock) (this.cards.get(batch.unplaced[0])?.picture ?? this.submitButton).focus();
    const last = moved.at(-1);
    if (last) {
      const words = group === null ? texts.returned : texts.moved;
      const left = batch.unplaced.length;
      this.announce(fill(words, { number: this.#number(last), group, left }));
    }
  }

  select(id) {
    const on = this.batch.toggle(id);
    this.queue.add("select", id, { on });
    this.focused = id;
    this.draw();
    this.announce(fill(this.texts.selected, { count: this.batch.selected.size }));
  }

  unselect() {
    for (const id of this.batch.selected) this.queue.add("select", id, { on: false });
    this.batch.selected.clear();
    this.draw();
  }

  toggleOverlay(id, how) {
    if (!this.overlays.delete(id)) this.overlays.add(id);
    this.hovered = null;
    this.looked = true;
    this.queue.add("overlay", id, { on: this.overlays.has(id), how });
    this.draw();
  }

  toggleAll() {
    const on = this.overlays.size < this.batch.ids.length;
    this.overlays = new Set(on ? this.batch.ids : []);
    this.looked = true;
    this.queue.add("all_overlays", null, { on });
    this.draw();
  }

  toggleFeature(feature) {
    if (!this.features.delete(feature)) this.features.add(feature);
    this.queue.add("feature", null, { feature, on: this.features.has(feature) });
    this.draw();
  }

  switchAll(on) {
    for (let feature = 1; feature <= this.content.features; feature++) {
      if (this.features.has(feature) !== on) this.toggleFeature(feature);
    }
  }

  /** Order the heatmaps of each picture by how much they count, or by their numbers again. */
  toggleSort() {
    this.byWeight = !this.byWeight;
    this.queue.add("sort", null, { on: this.byWeight });
    this.draw();
  }

  async zoom(id) {
    this.queue.add("zoom", id, { on: true });
    await openZoom(this.#shown(id), this.#number(id), this.texts, this.byWeight);
    this.queue.add("zoom", id, { on: false });
  }

  async compare(chosen = this.batch.ids.filter((id) => this.batch.selected.has(id))) {
    if (!chosen.length) {
      this.announce(this.texts.compare_empty);
      return;
    }
    const parts = chosen.map((id) => ({ image: this.#shown(id), number: this.#number(id) }));
    const count = this.stage === "XNN" ? this.content.features : 0;
    this.queue.add("compare", null, { on: true, count: chosen.length });
    await openCompare(parts, count, this.texts, (feature, on) =>
      this.queue.add("compare_feature", null, { feature, on }),
    );
    this.queue.add("compare", null, { on: false });
  }

  /** Practice: say which pictures are in the wrong place, and let people mend it or go on. */
  check() {
    const { texts, batch } = this;
    if (batch.unplaced.length) return;
    const shown = batch.ids.map((id) => this.images.get(id));
    const wrong = misplaced(shown, (id) => batch.group.get(id));
    this.wrong = new Set(wrong.map((image) => image.id));
    const right = { right: shown.length - wrong.length, total: shown.length };
    const numbers = wrong.map((image) => this.#number(image.id)).join(", ");
    const words = [fill(wrong.length ? texts.some_right : texts.all_right, { ...right, numbers })];
    if (this.stage === "1-Heatmap" && !this.looked) words.push(texts.not_looked);
    const more = this.part + 1 < this.parts.length;
    const on = make("button", { class: "primary", type: "button" }, more ? texts.next_part : texts.begin);
    on.addEventListener("click", () => {
      if (more) this.#open(this.part + 1);
      else this.submit();
      scrollTo(0, 0);
    });
    this.feedback.replaceChildren(make("p", {}, words.join(" ")), on);
    this.feedback.classList.toggle("good", !wrong.length);
    this.feedback.hidden = false;
    this.draw();
    on.focus({ preventScroll: true });
    this.feedback.scrollIntoView({ block: "nearest" });
  }

  /** What was said of the placements does not hold any more. */
  #forgetFeedback() {
    this.wrong = null;
    this.feedback.hidden = true;
  }

  async submit() {
    if (!this.batch.unplaced.length) await super.submit(this.submitButton);
  }

  // --- keyboard, focus, pointer

  /** What a key does on a picture; false if nothing. */
  #act(id, key) {
    const number = /^[0-9]$/.test(key) ? Number(key) : null;
    if (number !== null && number <= this.content.groups) {
      this.place(this.batch.meant(id), number || null, "keyboard");
    } else if (key === "backspace" || key === "delete") {
      this.place(this.batch.meant(id), null, "keyboard");
    } else if (key === "z") this.zoom(id);
    else if (key === "h" && this.stage === "1-Heatmap") this.toggleOverlay(id, "keyboard");
    else if (key === "c") this.compare();
    else if (key === "?") openHelp(this.texts);
    else if (key === "escape") this.unselect();
    else return false;
    return true;
  }

  /** Ids in the order of the page. */
  #order() {
    return [null, ...Array.from({ length: this.content.groups }, (_, n) => n + 1)].flatMap(
      (group) => this.batch.members(group),
    );
  }

  #focus(event) {
    const id = event.target.closest(".card")?.dataset.id;
    if (!id || id === this.focused) return;
    this.focused = id;
    for (const [each, card] of this.cards) card.reach(each === id);
  }

  #watchHover(zones) {
    enableHover(
      zones,
      () => this.hovered,
      (id) => {
        this.hovered = id;
        this.draw();
      },
      (id) => this.overlays.has(id),
      (id, on) => {
        this.looked ||= on;
        this.queue.add("overlay", id, { on, how: "hover" });
      },
    );
  }

  refused(status, answer) {
    if (!answer.unplaced || answer.next) {
      super.refused(status, answer);
      return;
    }
    for (const id of answer.unplaced) this.all.group.set(id, null);
    const lost = this.parts.findIndex(({ images }) => images.includes(answer.unplaced[0]));
    this.#open(Math.max(0, lost));
    this.announce(this.texts.not_placed);
  }
}

BatchPage.open(Page);
