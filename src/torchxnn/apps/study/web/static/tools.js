/** The buttons above the pictures of a batch: what is shown of them, and help. */

import { fill } from "./batch.js";
import { openHelp } from "./dialogs.js";
import { make } from "./dom.js";

/**
 * The buttons of a stage; those that it does not have are null.
 *
 * @param {string} stage
 * @param {{features: number, shows: string}} content of the batch
 * @param {Record<string, string>} texts
 * @param {object} page what the buttons call: toggleAll, toggleFeature, switchAll, toggleSort, compare
 */
export function makeTools(stage, content, texts, page) {
  const tools = make("div", { class: "tools" });
  const button = (text, onClick, properties = {}) => {
    const made = make("button", { type: "button", ...properties }, text);
    made.addEventListener("click", onClick);
    tools.append(made);
    return made;
  };
  const found = { tools, everyOverlay: null, switches: null, sorter: null };
  if (stage === "1-Heatmap") {
    const pressed = { "aria-pressed": "false" };
    found.everyOverlay = button(texts.all_overlays, () => page.toggleAll(), pressed);
  }
  if (stage === "XNN") {
    tools.setAttribute("role", "group");
    tools.setAttribute("aria-label", texts.heatmaps);
    found.switches = Array.from({ length: content.features }, (_, n) =>
      button(`H${n + 1}`, () => page.toggleFeature(n + 1), {
        class: "switch",
        "aria-pressed": "false",
        "aria-label": fill(texts.feature, { feature: n + 1 }),
      }),
    );
    button(texts.all_features, () => page.switchAll(true));
    button(texts.no_features, () => page.switchAll(false));
    if (content.shows !== "maps") {
      const pressed = { "aria-pressed": "false" };
      found.sorter = button(texts.by_weight, () => page.toggleSort(), pressed);
    }
  }
  const compare = button("", () => page.compare(), { class: "end" });
  button(texts.help, () => openHelp(texts));
  return { ...found, compare };
}
