import { LIMITS } from "./limits.js";

/** @typedef {import("../client.js").Message} Message */

/**
 * Messages on their way to the handlers: one after the other, in the order in which they came, and
 * each acknowledged when its handlers have ended well. So a message is delivered at least once.
 */
export class Mail {
  #deliver;
  #acknowledge;
  #waiting = 0;
  /** @type {Promise<void>} */
  #last = Promise.resolve();
  /** @type {Set<string>} */
  #handled = new Set();
  /** @type {Set<string>} */
  #inHand = new Set();

  /**
   * @param {(message: Message) => Promise<boolean>} deliver whether the handlers ended well
   * @param {(id: string) => void} acknowledge
   */
  constructor(deliver, acknowledge) {
    this.#deliver = deliver;
    this.#acknowledge = acknowledge;
  }

  /** @param {Message} message */
  take(message) {
    if (this.#inHand.has(message.id) || this.#waiting >= LIMITS.messagesWaiting) return;
    this.#waiting += 1;
    this.#inHand.add(message.id);
    this.#last = this.#last.then(() => this.#handle(message));
  }

  /** @param {Message} message */
  async #handle(message) {
    // The acknowledgement of one that comes again was lost, or it failed the last time.
    const done = this.#handled.has(message.id) || (await this.#deliver(message));
    this.#waiting -= 1;
    this.#inHand.delete(message.id);
    if (!done) return;
    this.#handled.add(message.id);
    if (this.#handled.size > LIMITS.messagesRemembered) {
      for (const oldest of this.#handled) {
        this.#handled.delete(oldest);
        break;
      }
    }
    // A broadcast is kept for nobody.
    if (message.type !== "broadcast") this.#acknowledge(message.id);
  }
}
