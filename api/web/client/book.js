/**
 * @typedef {import("../client.js").Status} Status
 * @typedef {Status & { position: number }} Change
 */

/** The statuses that were told, and up to which position of the log. */
export class Book {
  /** @type {number | undefined} where to go on from */
  position;
  /** @type {Map<string, Status>} */
  #known = new Map();
  /** @type {Set<string>} known, and not yet told of on a connection that began anew */
  #stale = new Set();

  /** @param {string} user */
  of(user) {
    return this.#known.get(user);
  }

  all() {
    return [...this.#known.values()];
  }

  /** @param {number} position everything up to it was told */
  reach(position) {
    if (this.position === undefined || position > this.position) this.position = position;
  }

  /**
   * @param {Change} change
   * @returns {Status | undefined} what is new in it; nothing, where it was told already
   */
  change(change) {
    if (this.position !== undefined && change.position <= this.position) return undefined;
    this.position = change.position;
    return this.#take(change);
  }

  /**
   * @param {Status[]} items @param {number} position as of which they are at least
   * @returns {Status[]} those that are new
   */
  snapshot(items, position) {
    this.reach(position);
    return items.filter((item) => this.#take(item));
  }

  /** A connection begins without going on from a position: what is known may be out of date. */
  anew() {
    this.#stale = new Set(this.#known.keys());
  }

  /** All snapshots have come. @returns {Status[]} those of whom nothing was said any more */
  settle() {
    const gone = [...this.#stale].map((user_id) => {
      this.#known.delete(user_id);
      return /** @type {Status} */ ({ user_id, status: "offline", since: null, last_seen: null });
    });
    this.#stale.clear();
    return gone;
  }

  /** @param {(user: string) => boolean} keeps nobody else is watched any longer */
  retain(keeps) {
    for (const user of this.#known.keys()) if (!keeps(user)) this.#known.delete(user);
  }

  /** @param {Status} told */
  #take(told) {
    const before = this.#known.get(told.user_id);
    this.#stale.delete(told.user_id);
    this.#known.set(told.user_id, told);
    const same = before && ["status", "since", "text", "invisible"].every((member) => {
      return Reflect.get(before, member) === Reflect.get(told, member);
    });
    return same ? undefined : told;
  }
}
