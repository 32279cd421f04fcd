/**
 * Events on their way to the server: kept in the browser until the server has them.
 *
 * An event is acknowledged or it is in this queue; the queue is in localStorage, so that a reload,
 * a closed tab or a browser that was killed loses nothing. Events have ids: sent twice, kept once.
 */

const MOST = 100; // events per request
const SOON = 120; // milliseconds that events wait for others
const LONGEST = 15000; // milliseconds between two attempts
const PATIENCE = 20000; // milliseconds until an attempt counts as lost

/** 16 random hexadecimal digits. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Milliseconds to wait before an attempt, doubling. @param {number} failures */
export function pause(failures) {
  return Math.min(LONGEST, 500 * 2 ** Math.max(0, failures - 1));
}

export class Queue {
  /**
   * @param {object} options
   * @param {string} options.url where events are sent to
   * @param {string} options.csrf signature of the session
   * @param {string} options.key of localStorage, different for every participant and batch; every
   *   tab keeps its own under it, and takes over what others left
   * @param {(state: "saved"|"saving"|"offline") => void} options.onState
   * @param {(status: number, answer: any) => void} options.onRefused the server will never take it
   */
  constructor({ url, csrf, key, onState, onRefused }) {
    Object.assign(this, { url, csrf, onState, onRefused });
    this.key = `${key}/${newId()}`;
    this.events = this.#takeOver(`${key}/`);
    this.#write();
    this.failures = 0;
    this.timer = null;
    this.sending = null;
    this.refused = false;
    addEventListener("online", () => this.#schedule(0));
    addEventListener("pagehide", () => this.#last());
    if (this.events.length) this.#schedule(0);
  }

  /** @param {string} type @param {string|null} image @param {object} value */
  add(type, image = null, value = {}) {
    const ms = Math.round(performance.now() * 10) / 10;
    this.events.push({ id: newId(), type, image, value, ms });
    this.#write();
    this.onState(this.failures ? "offline" : "saving");
    if (!this.failures) this.#schedule(SOON);
  }

  /** The group of every picture that was moved and not acknowledged yet. */
  get moves() {
    return this.events
      .filter((event) => event.type === "move")
      .map((event) => [event.image, event.value.group]);
  }

  /** Resolves when the server has everything. */
  async drain() {
    while (this.events.length && !this.refused) {
      this.#schedule(this.failures ? pause(this.failures) : 0);
      await new Promise((go) => setTimeout(go, 60));
    }
  }

  #schedule(wait) {
    if (this.sending || this.refused) return;
    if (this.timer !== null && wait > 0) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.sending = this.#send().finally(() => {
        this.sending = null;
        if (this.events.length) this.#schedule(this.failures ? this.wait : 0);
      });
    }, wait);
  }

  async #send() {
    const some = this.events.slice(0, MOST);
    if (!some.length) return;
    let wait = null;
    try {
      const signal = AbortSignal.timeout(PATIENCE);
      const answer = await fetch(this.url, { ...this.#request(some), signal });
      if (answer.ok) {
        const saved = new Set((await answer.json()).saved);
        this.events = this.events.filter((event) => !saved.has(event.id));
        this.failures = 0;
        this.#write();
        this.onState(this.events.length ? "saving" : "saved");
        return;
      }
      if (answer.status < 500 && answer.status !== 429 && answer.status !== 408) {
        this.#refuse(answer.status, await answer.json().catch(() => ({})));
        return;
      }
      wait = 1000 * Number(answer.headers.get("Retry-After") ?? 0);
    } catch {
      // no connection, or the server is away
    }
    this.failures += 1;
    this.wait = Math.max(wait ?? 0, pause(this.failures));
    this.onState("offline");
  }

  #refuse(status, answer) {
    this.refused = true;
    if (status === 409) {
      // the batch is closed: what is left here will never be wanted
      this.events = [];
      this.#write();
    }
    this.onRefused(status, answer);
  }

  #request(events, keepalive = false) {
    return {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": this.csrf },
      body: JSON.stringify({ events }),
      keepalive,
    };
  }

  /** The page goes away: send what there is and do not wait; it stays in localStorage as well. */
  #last() {
    if (this.events.length && !this.refused) {
      fetch(this.url, this.#request(this.events.slice(0, MOST), true)).catch(() => {});
    }
  }

  /** Events that an earlier page of this batch could not send. */
  #takeOver(prefix) {
    const found = new Map();
    try {
      const keys = Object.keys(localStorage).filter((key) => key.startsWith(prefix));
      for (const key of keys) {
        for (const event of JSON.parse(localStorage.getItem(key)) ?? []) found.set(event.id, event);
      }
      localStorage.setItem(this.key, JSON.stringify([...found.values()]));
      for (const key of keys) localStorage.removeItem(key);
    } catch {
      // storage is forbidden, or holds what we did not write
    }
    return [...found.values()];
  }

  #write() {
    try {
      if (this.events.length) localStorage.setItem(this.key, JSON.stringify(this.events));
      else localStorage.removeItem(this.key);
    } catch {
      // storage is full or forbidden: the queue in memory is what is left
    }
  }
}
