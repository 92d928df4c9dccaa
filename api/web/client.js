/**
 * Rollcall in a browser: says that a person is here, and hears who else is. No dependencies.
 *
 *     import { connect } from "https://rollcall.example/client.js";
 *
 *     async function getToken() {
 *       const answer = await fetch("/my/token", { cache: "no-store" });
 *       if (!answer.ok) throw new Error(`/my/token answers ${answer.status}`);
 *       return answer.text();
 *     }
 *
 *     const presence = connect({ getToken });
 *     presence.on("status", ({ user_id, status }) => show(user_id, status));
 *     presence.watch(["ana", "bob"]);
 *
 * **The session.** Each page is a session of its own, also each of several tabs: the server counts
 * a user as online while any of them is active, so tabs need to know nothing of each other.
 * Heartbeats go at the server's interval, less up to a fifth, and tell for how long nothing was
 * done here; at once when the person turns idle or comes back. When the page goes (`pagehide`) the
 * session is closed; a page that comes back out of the back-forward cache logs in anew. Browsers
 * slow the timers of hidden pages down to one a minute: a lease below that ends their sessions.
 *
 * **The connection.** WebSocket, else server-sent events, else long polls: the next one after two
 * failures while plain HTTP works. After a loss it comes back with full-jitter back-off (up to
 * 30 s), resumes its session, and is told what it missed, each change once, in order; of whom it
 * missed too much, how things stand. Over streams and polls a new watch list begins with how
 * things stand, messages are looked for with each heartbeat, broadcasts do not come, and nothing
 * can be sent. HTTP/1.1 gives all tabs of an origin six connections: use HTTP/2 for more of those.
 *
 * **Messages** are acknowledged once their handlers have ended (a promise is awaited): at least
 * once. One whose handler failed, or that has none, comes again with a later connection. A handler
 * that blocks the page (`alert`) stops its heartbeats.
 *
 * **The end.** A token that ends is asked for anew with `getToken`; without it, or where the
 * server says 400, 401, 403 or 422, or somebody ended the session on purpose (`admin_reset`,
 * `user_request`), the client stops: `state` is `closed`, and an `error` with `fatal` says why.
 * Not so for a watched group that one does not, or no longer, belong to: it is taken off the watch
 * list, a plain `error` `forbidden` names it in `groups`, and all else goes on.
 *
 * **Limits** are in `LIMITS`. `client.d.ts` has the types.
 */
import { checkBody, checkName } from "./client/check.js";
import { Core, EVENTS, LINKS } from "./client/core.js";
import { PresenceError } from "./client/errors.js";
import { LIMITS } from "./client/limits.js";
import { namesOf } from "./client/list.js";
import { Wire } from "./client/wire.js";

export { EVENTS, LIMITS, PresenceError };

/**
 * @typedef {"online" | "away" | "busy" | "dnd" | "offline"} StatusName
 * @typedef {{ user_id: string, status: StatusName, since: string | null,
 *   last_seen: string | null, text?: string, invisible?: boolean }} Status
 * @typedef {{ type: "message" | "notification" | "broadcast" | "group", id: string, body: string,
 *   from?: string, group?: string, title?: string, created_at: string }} Message
 * @typedef {"websocket" | "sse" | "poll"} TransportName
 * @typedef {{ state: "connecting" | "open" | "retrying" | "closed", transport: TransportName,
 *   retry_in_ms?: number, error?: PresenceError }} State
 * @typedef {string | readonly string[] |
 *   { users?: readonly string[], groups?: readonly string[] }} Names
 * @typedef {{ url?: string | URL, token?: string, getToken?: () => string | Promise<string>,
 *   device?: { id?: string, kind?: string, label?: string }, idleAfterMs?: number,
 *   transports?: readonly TransportName[] }} Options
 */

/** The ways to connect, best first. */
export const TRANSPORTS = Object.freeze(/** @type {TransportName[]} */ (Object.keys(LINKS)));

/**
 * Logs in and stays connected until `close()`.
 * @param {Options} options `url`: the server, by default where this module came from; `token`, or
 *   `getToken` to be asked for one; `idleAfterMs`: when to say that the person is idle, by default
 *   the server's `away_after_ms`, which decides; `transports`: which ones, in this order. Throws a
 *   TypeError for what is none of these
 */
export function connect(options) {
  return new Presence(options);
}

/** A connection that comes back. Made by `connect`. */
export class Presence {
  #core;

  /** @param {Options} options */
  constructor({ url, token, getToken, device, idleAfterMs, transports = TRANSPORTS }) {
    if (!token && !getToken) throw new TypeError("a token is needed, or getToken()");
    if (transports.length === 0 || !transports.every((name) => TRANSPORTS.includes(name))) {
      throw new TypeError(`transports are out of ${TRANSPORTS.join(", ")}`);
    }
    if (idleAfterMs !== undefined && !(idleAfterMs > 0)) {
      throw new TypeError("idleAfterMs is a duration in milliseconds");
    }
    const wire = new Wire(url ?? new URL(".", import.meta.url), token, getToken);
    this.#core = new Core(wire, device, [...transports], idleAfterMs);
    // Later, so that handlers can be added and users watched before anything happens.
    /** Resolved when the client has stopped. */
    this.closed = Promise.resolve().then(() => this.#core.run());
  }

  /** Where the connection is: the latest `state`. */
  get state() {
    return this.#core.state;
  }

  /** Whose presence it is, once there is a token. */
  get userId() {
    return this.#core.wire.userId;
  }

  /** The session's name, while there is one. */
  get sessionId() {
    return this.#core.session?.id;
  }

  /**
   * Adds a handler: `status` (somebody's status is another one), `snapshot` (how things stand,
   * before the `status` of each who differs), `message`, `notification`, `broadcast`, `group`
   * (messages), `state`, `error`. Throws a TypeError where there is no such event, or no function.
   * @param {string} event @param {(detail: any) => unknown} handler
   * @returns {() => void} takes it off again
   */
  on(event, handler) {
    return this.#core.handlers.on(event, handler);
  }

  /**
   * Adds to the watch list: users, the members of groups, or everybody. Throws, and adds nothing: a
   * TypeError that says what is no name, a RangeError where the list would be too long.
   * @param {Names} [who] a user, users, `{ users, groups }`; left out: everybody
   */
  watch(who) {
    const core = this.#core;
    const fresh = core.list.add(namesOf(who));
    if (!fresh.everybody && fresh.users.length + fresh.groups.length === 0) return;
    core.listTold = false;
    void core.link?.watch(fresh);
  }

  /**
   * Takes off the watch list. Throws a TypeError that says what is no name, and takes off nothing.
   * @param {Names} [who] left out: all of it
   */
  unwatch(who) {
    const core = this.#core;
    const gone = core.list.remove(namesOf(who));
    if (!core.list.open) core.book.retain((user) => core.list.has(user));
    void core.link?.unwatch(gone);
  }

  /**
   * Whether a user is on the watch list by name, or everybody is. Throws a TypeError for what is no
   * name.
   * @param {string} user
   */
  watches(user) {
    return this.#core.list.has(checkName(user));
  }

  /** What was last told of a watched user. @param {string} user @returns {Status | undefined} */
  statusOf(user) {
    return this.#core.book.of(user);
  }

  /** What was last told of all watched. @returns {Status[]} */
  statuses() {
    return this.#core.book.all();
  }

  /**
   * Sends a message to a user or to a group. Rejected where it was refused, with `not_open` where
   * there is no WebSocket now, with `unanswered` where nobody knows whether it arrived, with
   * `too_fast` while 100 wait for their answers: the server takes 50 frames a second, 200 at once.
   * Nothing is sent of what is longer than 16,384 bytes (RangeError) or goes to what is no name
   * (TypeError).
   * @param {string | { group: string }} to @param {string} body
   * @returns {Promise<{ id?: string }>}
   */
  async send(to, body) {
    const group = /** @type {any} */ (to)?.group;
    const whom = group === undefined ? { to: checkName(to) } : { group: checkName(group) };
    const { id } = await this.#core.say({ type: "send", ...whom, body: checkBody(body) });
    return { id };
  }

  /** Acknowledges a message; by default that is done when its handlers have ended well. */
  async ack(/** @type {string} */ id) {
    await this.#core.acknowledge(id);
  }

  /** Is in a group while connected. @param {string} group */
  async join(group) {
    this.#core.joined.add(checkName(group));
    this.#core.left.delete(group);
    await this.#core.say({ type: "join", group });
  }

  /** Stays out, also of a group that the token names. @param {string} group */
  async leave(group) {
    this.#core.left.add(checkName(group));
    this.#core.joined.delete(group);
    await this.#core.say({ type: "leave", group });
  }

  /**
   * Asserts one's own status; `null` takes that back.
   * @param {"online" | "away" | "busy" | "dnd" | null} status
   * @param {{ text?: string, ttlMs?: number }} [more] `ttlMs`: ends by itself
   * @returns {Promise<Status>}
   */
  async setManual(status, { text, ttlMs } = {}) {
    const path = `${await this.#self()}/claims/manual`;
    if (status === null) return this.#core.wire.call("DELETE", path);
    return this.#core.wire.call("PUT", path, { body: { status, text, ttl_ms: ttlMs } });
  }

  /** Is shown to others as offline. @param {boolean} invisible @returns {Promise<Status>} */
  async setInvisible(invisible) {
    const path = `${await this.#self()}/visibility`;
    return this.#core.wire.call("PUT", path, { body: { invisible } });
  }

  async #self() {
    await this.#core.wire.token();
    return `v1/users/${encodeURIComponent(this.userId ?? "")}`;
  }

  /** Logs out and stops. Resolved when that is done here; the server hears it a moment later. */
  close() {
    this.#core.close();
    return this.closed;
  }
}
