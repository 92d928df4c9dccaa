import { LIMITS } from "./limits.js";

const SIGNS = ["pointermove", "pointerdown", "keydown", "wheel", "touchstart", "scroll"];

/**
 * When the person last did something. By the wall clock: it runs on while a computer sleeps, and
 * whoever closed the lid was not here.
 */
export class Activity {
  #last = Date.now();
  #looked = 0;
  #idle = false;
  #idleAfter = LIMITS.idleAfterMs;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #changed;

  /** @param {() => void} changed called when the person has become idle, or has come back */
  constructor(changed) {
    this.#changed = changed;
  }

  /** For how long nothing was done. */
  get idleMs() {
    // Clocks are set back at times.
    return Math.max(0, Date.now() - this.#last);
  }

  /** From when on the person counts as idle. */
  set idleAfterMs(/** @type {number} */ ms) {
    this.#idleAfter = ms;
    this.#wait();
  }

  start() {
    for (const sign of SIGNS) addEventListener(sign, this.#sign, { passive: true, capture: true });
    document.addEventListener("visibilitychange", this.#seen);
    this.#wait();
  }

  stop() {
    for (const sign of SIGNS) removeEventListener(sign, this.#sign, { capture: true });
    document.removeEventListener("visibilitychange", this.#seen);
    clearTimeout(this.#timer);
  }

  /** Pages scroll and move by themselves; only what a person does counts. */
  #sign = (/** @type {Event} */ event) => {
    const now = Date.now();
    const lately = now >= this.#looked && now - this.#looked < LIMITS.activityMs;
    if (!event.isTrusted || (lately && !this.#idle)) return;
    this.#looked = now;
    this.#note(now);
  };

  #seen = () => {
    if (document.visibilityState === "visible") this.#note(Date.now());
  };

  /** @param {number} now */
  #note(now) {
    // Timers of hidden pages run late: the idleness may have been noticed by nobody.
    const wasIdle = this.#idle || this.idleMs >= this.#idleAfter;
    this.#last = now;
    this.#idle = false;
    if (wasIdle) {
      this.#wait();
      this.#changed();
    }
  }

  /** One timer, which looks again when it is due: input moves no timers. */
  #wait() {
    clearTimeout(this.#timer);
    const left = this.#idleAfter - this.idleMs;
    // A little late, so that the heartbeat says no less than the limit.
    this.#timer = setTimeout(() => this.#due(), Math.min(Math.max(left, 0) + 20, 0x7fffffff));
  }

  #due() {
    if (this.idleMs < this.#idleAfter) {
      this.#wait();
    } else if (!this.#idle) {
      this.#idle = true;
      this.#changed();
    }
  }
}
