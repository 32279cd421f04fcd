/**
 * Which picture is in which group, which are selected, which heatmaps are on. No DOM here.
 */

export class Batch {
  /**
   * @param {{id: string, group: number|null}[]} images in the order in which they are shown
   * @param {number} groups
   */
  constructor(images, groups) {
    this.ids = images.map((image) => image.id);
    this.groups = groups;
    this.group = new Map(images.map((image) => [image.id, image.group]));
    this.selected = new Set();
  }

  /** From 1. */
  number(id) {
    return this.ids.indexOf(id) + 1;
  }

  /** Pictures of a group in the order of the batch; null for those without one. */
  members(group) {
    return this.ids.filter((id) => this.group.get(id) === group);
  }

  get unplaced() {
    return this.members(null);
  }

  /** @returns {boolean} whether anything changed */
  place(id, group) {
    const wanted = group === null || (group >= 1 && group <= this.groups);
    if (!this.group.has(id) || !wanted || this.group.get(id) === group) return false;
    this.group.set(id, group);
    return true;
  }

  toggle(id) {
    if (!this.selected.delete(id)) this.selected.add(id);
    return this.selected.has(id);
  }

  /** What a command on a picture means: all selected ones if it is among them, else itself. */
  meant(id) {
    return this.selected.has(id) ? this.ids.filter((each) => this.selected.has(each)) : [id];
  }
}

/** The picture after one that leaves its group, so that the focus stays among those still to do. */
export function neighbour(ids, id) {
  const place = ids.indexOf(id);
  return ids[place + 1] ?? ids[place - 1] ?? null;
}

/**
 * Pictures that are apart from one of their kind, or together with one of another.
 *
 * @param {{id: string, kind: number}[]} images
 * @param {(id: string) => number|null} groupOf
 */
export function misplaced(images, groupOf) {
  const wrong = (one, other) =>
    one !== other && (one.kind === other.kind) !== (groupOf(one.id) === groupOf(other.id));
  return images.filter((one) => images.some((other) => wrong(one, other)));
}

/** Numbers of x-features, from 1, in the order in which they are shown of a picture. */
export function inOrder(features, shown, byWeight) {
  const weight = (n) => Math.abs(features[n - 1].contribution ?? 0);
  return [...shown].sort((a, b) => (byWeight && weight(b) - weight(a)) || a - b);
}

/** Fill {names} in a text. @param {string} text @param {Record<string, any>} values */
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all));
}

/** A share of the logit as "+42%", with a true minus sign. @param {number} share in -1..1 */
export function percent(share) {
  const rounded = Math.round(100 * share);
  if (rounded === 0) return "0%";
  return `${rounded > 0 ? "+" : "\u2212"}${Math.abs(rounded)}%`;
}

/** "for", "against" or "" as the number is shown. @param {number} share */
export function side(share) {
  const rounded = Math.round(100 * share);
  if (rounded === 0) return "";
  return rounded > 0 ? "for" : "against";
}
