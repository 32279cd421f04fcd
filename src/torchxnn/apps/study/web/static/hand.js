/**
 * How the hand came to a move: how far and how straight the pointer travelled, never where.
 *
 * A leg of the path ends where a button goes down or up. Pages say so only where the consent text
 * tells people that it is kept.
 */

const KINDS = ["pointerdown", "pointerup", "click", "keydown"];
const round = (pixels) => Math.round(10 * pixels) / 10;

export class PointerPath {
  constructor() {
    this.trusted = true;
    this.at = null;
    this.#begin();
    addEventListener("pointermove", (event) => this.#step(event), true);
    for (const kind of KINDS) addEventListener(kind, (event) => this.#turn(event), true);
  }

  /**
   * Figures since they were last taken.
   *
   * @returns {{travel: number, direct: number, samples: number, trusted: boolean}} pixels of the
   *   path, of the straight lines of its legs, positions, and whether a device made the last event
   */
  take() {
    this.#endLeg();
    const { travel, direct, samples, trusted } = this;
    this.#begin();
    return { travel: round(travel), direct: round(direct), samples, trusted };
  }

  #begin() {
    Object.assign(this, { travel: 0, direct: 0, samples: 0, leg: this.at });
  }

  #step(event) {
    const now = { x: event.clientX, y: event.clientY };
    if (this.at) this.travel += Math.hypot(now.x - this.at.x, now.y - this.at.y);
    this.leg ??= now;
    this.samples += 1;
    this.at = now;
  }

  #turn(event) {
    this.trusted = event.isTrusted;
    if (event.type.startsWith("pointer")) this.#endLeg();
  }

  #endLeg() {
    if (this.at && this.leg) {
      this.direct += Math.hypot(this.at.x - this.leg.x, this.at.y - this.leg.y);
    }
    this.leg = this.at;
  }
}

/** Log when another window comes before this one, and when it goes. @param {object} queue */
export function watchFocus(queue) {
  addEventListener("blur", () => queue.add("focus", null, { on: false }));
  addEventListener("focus", () => queue.add("focus", null, { on: true }));
}
