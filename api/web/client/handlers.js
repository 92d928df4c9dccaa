/**
 * Handlers by the name of their event. No EventTarget: that keeps what a handler returns to
 * itself, and a message is acknowledged after its handlers' promises.
 */
export class Handlers {
  /** @type {Map<string, Set<(detail: any) => unknown>>} */
  #byName;

  /** @param {readonly string[]} names all events there are */
  constructor(names) {
    this.#byName = new Map(names.map((name) => [name, new Set()]));
  }

  /** @param {string} name @param {(detail: any) => unknown} handler @returns {() => void} off */
  on(name, handler) {
    const handlers = this.#byName.get(name);
    if (!handlers) throw new TypeError(`there is no event "${name}"`);
    if (typeof handler !== "function") throw new TypeError("a handler is a function");
    // Wrapped, so that one function added twice is taken off once.
    const own = (/** @type {any} */ detail) => handler(detail);
    handlers.add(own);
    return () => void handlers.delete(own);
  }

  /** Runs all of one event now. What they throw is reported as any listener's is. */
  tell(/** @type {string} */ name, /** @type {any} */ detail) {
    void this.deliver(name, detail);
  }

  /**
   * Runs all of one event.
   * @param {string} name @param {any} detail
   * @returns {Promise<boolean>} whether there was one, and none failed
   */
  async deliver(name, detail) {
    const ran = [...(this.#byName.get(name) ?? [])].map((handler) => {
      try {
        return Promise.resolve(handler(detail));
      } catch (error) {
        return Promise.reject(error);
      }
    });
    const settled = await Promise.allSettled(ran);
    for (const result of settled) {
      if (result.status === "rejected") report(result.reason);
    }
    return settled.length > 0 && settled.every((result) => result.status === "fulfilled");
  }
}

/** @param {unknown} error */
function report(error) {
  if (typeof reportError === "function") reportError(error);
  else console.error(error);
}
