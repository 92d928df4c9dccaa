import { PresenceError } from "./errors.js";
import { LIMITS } from "./limits.js";

/** @typedef {import("./core.js").Core} Core */

/** Pages of waiting messages that are read at once. */
const MAIL_PAGES_MAX = 10;

/** A session over plain HTTP: what streams and polls have in common. */
export class HttpLink {
  canSend = false;
  /** @protected @type {Core} */
  core;
  /** @protected ends everything under way */
  ended = new AbortController();
  /** @protected the current request for changes: a new watch list asks anew */
  asking = new AbortController();
  /** @type {PresenceError | undefined} */
  #why;
  #left = false;

  /** @param {Core} core */
  constructor(core) {
    this.core = core;
    this.ended.signal.addEventListener("abort", () => this.asking.abort());
  }

  /** Until it has ended, which is an error unless we left. */
  async run() {
    if (!this.core.listTold) this.core.book.position = undefined;
    this.core.listTold = true;
    try {
      await this.#logIn();
      while (!this.ended.signal.aborted) {
        this.asking = new AbortController();
        await this.listen(this.asking.signal);
      }
    } catch (error) {
      this.end(PresenceError.of(error));
    }
    if (!this.#left) throw this.#why ?? new PresenceError("connection_lost", "it ended");
  }

  /** Hears of changes until the signal, or an error. @param {AbortSignal} _signal */
  async listen(_signal) {}

  /** Goes on with the session, whatever transport it was opened over, or opens one. */
  async #logIn() {
    const { wire, session, activity, device } = this.core;
    if (session && (await this.#keeps(session.id))) return;
    if (this.ended.signal.aborted) return;
    const body = { session_id: this.core.loginId, device, idle_ms: activity.idleMs };
    const options = { body, signal: this.ended.signal };
    const opened = await wire.call("POST", "v1/sessions", options);
    if (this.#left) return;
    this.core.opened({ id: opened.session_id }, opened.heartbeat_interval_ms);
    await this.#fetchMail();
  }

  /** @param {string} id @returns {Promise<boolean>} whether the session lives */
  async #keeps(id) {
    try {
      const kept = await this.#heartbeat(id, LIMITS.answerMs);
      this.core.opened(this.core.session ?? { id }, kept.heartbeat_interval_ms);
      await this.#fetchMail();
      return true;
    } catch (error) {
      const { status, reason } = PresenceError.of(error);
      if (status !== 410 && status !== 404 && status !== 403) throw error;
      this.core.sessionOver(reason);
      return false;
    }
  }

  /** @param {string} id @param {number} timeoutMs @returns {Promise<any>} */
  #heartbeat(id, timeoutMs) {
    const body = { idle_ms: this.core.activity.idleMs };
    const options = { body, timeoutMs, signal: this.ended.signal };
    return this.core.wire.call("POST", `v1/sessions/${id}/heartbeat`, options);
  }

  /** A sign of life. @param {number} answerMs */
  async beat(answerMs) {
    const { session } = this.core;
    if (!session || this.ended.signal.aborted) return;
    try {
      const kept = await this.#heartbeat(session.id, answerMs);
      this.core.interval(kept.heartbeat_interval_ms);
      await this.#fetchMail();
    } catch (error) {
      this.end(PresenceError.of(error));
    }
  }

  /** Nobody tells of messages here: they are looked for with each heartbeat. */
  async #fetchMail() {
    const signal = this.ended.signal;
    let cursor = "";
    for (let page = 0; page < MAIL_PAGES_MAX; page += 1) {
      const path = `v1/messages?limit=100${cursor && `&cursor=${encodeURIComponent(cursor)}`}`;
      const { items, next_cursor } = await this.core.wire.call("GET", path, { signal });
      for (const item of items) this.core.heard(item);
      if (!next_cursor) return;
      cursor = next_cursor;
    }
  }

  /** @param {string} id */
  acknowledge(id) {
    return this.core.wire.call("POST", "v1/messages/ack", { body: { ids: [id] } });
  }

  /** @returns {Promise<never>} */
  say() {
    const detail = "messages are sent over a WebSocket alone, and there is none now";
    return Promise.reject(new PresenceError("not_open", detail));
  }

  /** Begins with a snapshot of the whole new list; what of it is known already is no news. */
  watch() {
    this.core.book.position = undefined;
    this.core.listTold = true;
    this.asking.abort();
  }

  unwatch() {
    this.asking.abort();
  }

  /** Logs out: at once, and without waiting, as the page may be going. */
  leave() {
    this.#left = true;
    const { session, wire } = this.core;
    if (session) wire.forget("DELETE", `v1/sessions/${session.id}`);
    this.end(new PresenceError("closed", "it was closed"));
  }

  /** @protected @param {PresenceError} why */
  end(why) {
    this.#why ??= why;
    this.ended.abort();
  }
}
