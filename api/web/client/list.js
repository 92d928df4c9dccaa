import { checkName } from "./check.js";
import { LIMITS } from "./limits.js";

/** @typedef {{ everybody: boolean, users: string[], groups: string[] }} Names */

/** Whom the page wants to hear of. It outlives connections. */
export class List {
  #everybody = false;
  /** @type {Set<string>} */
  #users = new Set();
  /** @type {Set<string>} */
  #groups = new Set();

  /** @returns {Names} */
  all() {
    return { everybody: this.#everybody, users: [...this.#users], groups: [...this.#groups] };
  }

  /** The parameters of `/v1/stream` and `/v1/changes`; everybody is meant by none. */
  query() {
    const query = new URLSearchParams();
    if (this.#everybody) return query;
    query.set("users", [...this.#users].join(","));
    if (this.#groups.size > 0) query.set("groups", [...this.#groups].join(","));
    return query;
  }

  /** @param {string} user */
  has(user) {
    return this.#everybody || this.#users.has(user);
  }

  /** Whether somebody may be told of who is not named. */
  get open() {
    return this.#everybody || this.#groups.size > 0;
  }

  /** @param {Names} names @returns {Names} those that are new on it */
  add({ everybody, users, groups }) {
    const fresh = {
      everybody: everybody && !this.#everybody,
      users: users.filter((user) => !this.#users.has(user)),
      groups: groups.filter((group) => !this.#groups.has(group)),
    };
    if (this.#users.size + fresh.users.length > LIMITS.users) {
      throw new RangeError(`at most ${LIMITS.users} users; watch() without names means everybody`);
    }
    if (this.#groups.size + fresh.groups.length > LIMITS.groups) {
      throw new RangeError(`at most ${LIMITS.groups} groups`);
    }
    this.#everybody ||= everybody;
    for (const user of users) this.#users.add(user);
    for (const group of groups) this.#groups.add(group);
    return fresh;
  }

  /** @param {Names} names everybody: the whole list @returns {Names} those that were on it */
  remove({ everybody, users, groups }) {
    if (everybody) {
      this.#everybody = false;
      this.#users.clear();
      this.#groups.clear();
      return { everybody, users: [], groups: [] };
    }
    return {
      everybody,
      users: users.filter((user) => this.#users.delete(user)),
      groups: groups.filter((group) => this.#groups.delete(group)),
    };
  }
}

/**
 * What `watch` and `unwatch` take: nothing (everybody), a name, names, or users and groups. Throws
 * a TypeError for everything else, and for a name that is none.
 * @param {string | readonly string[] | { users?: readonly string[], groups?: readonly string[] }}
 *   [who]
 * @returns {Names}
 */
export function namesOf(who) {
  if (who === undefined) return { everybody: true, users: [], groups: [] };
  const listed = typeof who === "string" ? [who] : who;
  const named = /** @type {any} */ (Array.isArray(listed) ? { users: listed } : listed);
  const { users, groups } = named ?? {};
  const lists = [users, groups].filter((list) => list !== undefined);
  if (lists.length === 0 || !lists.every(Array.isArray)) {
    throw new TypeError("named are a user, users, or { users, groups }, which are lists");
  }
  const all = (/** @type {unknown[]} */ names = []) => [...new Set(names.map(checkName))];
  return { everybody: false, users: all(users), groups: all(groups) };
}
