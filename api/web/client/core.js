import { Activity } from "./activity.js";
import { Book } from "./book.js";
import { PresenceError } from "./errors.js";
import { Handlers } from "./handlers.js";
import { LIMITS } from "./limits.js";
import { List } from "./list.js";
import { Mail } from "./mail.js";
import { PollLink } from "./poll.js";
import { SocketLink } from "./socket.js";
import { StreamLink } from "./stream.js";
import { uuid } from "./uuid.js";

/**
 * @typedef {{ id: string, resumeToken?: string }} Session
 * @typedef {import("../client.js").TransportName} TransportName
 */

/** One connection after the other, until it is closed or told to stop. */
export const LINKS = { websocket: SocketLink, sse: StreamLink, poll: PollLink };
export const EVENTS = Object.freeze([
  "status", "snapshot", "message", "notification", "broadcast", "group", "state", "error",
]);
const MESSAGES = new Set(["message", "notification", "broadcast", "group"]);
/** Somebody meant these ends of a session: it is not for us to begin another one. */
const MEANT = new Set(["admin_reset", "user_request"]);

/** What stands behind a `Presence`: it holds what outlives a connection. */
export class Core {
  handlers = new Handlers(EVENTS);
  book = new Book();
  list = new List();
  /** @type {Set<string>} groups to be in while connected */
  joined = new Set();
  /** @type {Set<string>} groups not to be in, whatever the token says */
  left = new Set();
  /** @type {Session | undefined} */
  session;
  /** Under which name to log in: the same until that has worked, as an answer may be lost. */
  loginId = uuid();
  /** The server knows the whole list; if not, it tells of all anew. */
  listTold = true;
  activity = new Activity(() => this.#beatNow());
  mail = new Mail(
    (message) => this.handlers.deliver(message.type, message),
    (id) => this.#acknowledge(id),
  );
  state = /** @type {import("../client.js").State} */ ({ state: "connecting" });
  /** @type {SocketLink | StreamLink | PollLink | undefined} */
  link;
  #transports;
  #transport = 0;
  #fellBackAt = 0;
  #failures = 0;
  #closing = false;
  #ownIdleAfter;
  #intervalMs = LIMITS.retryMaxMs;
  #openedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #beat;
  /** Ends a pause between two connections. */
  #wake = () => {};
  /** @type {Promise<void> | undefined} the page is put aside; until it is shown again */
  #aside;
  #shown = () => {};

  /**
   * @param {import("./wire.js").Wire} wire @param {object | undefined} device
   * @param {TransportName[]} transports @param {number | undefined} idleAfterMs
   */
  constructor(wire, device, transports, idleAfterMs) {
    this.wire = wire;
    this.device = { kind: "web", ...device };
    this.#transports = transports;
    this.#ownIdleAfter = idleAfterMs;
    if (idleAfterMs !== undefined) this.activity.idleAfterMs = idleAfterMs;
  }

  get transport() {
    return this.#transports[this.#transport];
  }

  /** Connects, again and again. Resolved at the end, whatever it is. */
  async run() {
    this.#listen(true);
    let attempt = 0;
    while (!this.#closing) {
      if (this.#aside) {
        this.#tell("retrying");
        await this.#aside;
        attempt = 0;
      }
      const error = await this.#connectOnce();
      if (this.#closing || this.#aside) continue;
      const stood = this.#openedAt > 0 ? Date.now() - this.#openedAt : 0;
      if (stood >= LIMITS.stableMs) attempt = 0;
      if (await this.#isEnd(error)) return this.#stop(error);
      if (this.#fallsBack(error)) attempt = 0;
      const most = Math.min(LIMITS.retryMaxMs, LIMITS.retryBaseMs * 2 ** attempt);
      attempt = Math.min(attempt + 1, 16);
      const delay = Math.max(LIMITS.retryMinMs, Math.random() * most, error.retryAfterMs);
      this.#tell("retrying", { error, retry_in_ms: Math.round(delay) });
      await this.#pause(delay, error.retryAfterMs);
    }
    this.#stop(undefined);
  }

  /** @returns {Promise<PresenceError>} why it ended */
  async #connectOnce() {
    this.#openedAt = 0;
    this.#tell("connecting");
    this.link = new LINKS[this.transport](this);
    try {
      await this.link.run();
      return new PresenceError("connection_lost", "the connection ended");
    } catch (error) {
      return PresenceError.of(error);
    } finally {
      this.link = undefined;
      clearTimeout(this.#beat);
    }
  }

  /** Whether trying again is pointless, or not wanted. @param {PresenceError} error */
  async #isEnd(error) {
    if (error.code === "token_ended") return !this.wire.refuse();
    if (error.code === "session_closed" || error.code === "session_taken") {
      error.reason ??= await this.#reasonOfEnd();
      // Where it can be resumed, the server goes on from our position with another one.
      if (error.code === "session_taken" || !this.session?.resumeToken) this.sessionOver();
      return error.reason !== undefined && MEANT.has(error.reason);
    }
    return error.final;
  }

  /** A WebSocket's end does not say why its session is over; HTTP does. */
  async #reasonOfEnd() {
    if (!this.session) return undefined;
    try {
      await this.wire.call("POST", `v1/sessions/${this.session.id}/heartbeat`, { body: {} });
    } catch (error) {
      return PresenceError.of(error).reason;
    }
    return undefined;
  }

  /** Where something lets no WebSocket through, the next transport is tried. */
  #fallsBack(/** @type {PresenceError} */ error) {
    this.#failures = error.blocked ? this.#failures + 1 : 0;
    const last = this.#transport === this.#transports.length - 1;
    if (this.#failures >= LIMITS.failuresPerTransport && !last) {
      this.#transport += 1;
      this.#failures = 0;
      this.#fellBackAt = Date.now();
      return true;
    }
    if (this.#transport > 0 && Date.now() - this.#fellBackAt > LIMITS.fallbackMs) {
      this.#transport = 0;
    }
    return false;
  }

  /** @param {Session} session @param {number} intervalMs */
  opened(session, intervalMs) {
    const before = this.session;
    this.session = session;
    this.loginId = uuid();
    this.#openedAt = Date.now();
    // One that was opened over HTTP cannot be resumed by a WebSocket.
    if (before && before.id !== session.id && !before.resumeToken) {
      this.wire.forget("DELETE", `v1/sessions/${before.id}`);
    }
    this.interval(intervalMs);
    this.#tell("open");
    if (this.#ownIdleAfter === undefined) void this.#askPolicy();
  }

  sessionOver(/** @type {string | undefined} */ reason = undefined) {
    this.session = undefined;
    this.loginId = uuid();
    if (reason !== undefined && MEANT.has(reason)) {
      throw new PresenceError("session_closed", "the session was ended", { reason });
    }
  }

  /** From when on the server takes a person for idle. Not knowing it costs promptness alone. */
  async #askPolicy() {
    try {
      const policy = await this.wire.call("GET", "v1/policy");
      this.activity.idleAfterMs = policy.away_after_ms;
    } catch (error) {
      this.failed(error);
    }
  }

  /** A heartbeat after at most so long, with jitter: a herd that came together spreads. */
  interval(/** @type {number} */ ms) {
    this.#intervalMs = ms;
    clearTimeout(this.#beat);
    this.#beat = setTimeout(() => this.#beatNow(), ms * (0.8 + 0.2 * Math.random()));
  }

  #beatNow(answerMs = LIMITS.answerMs) {
    if (!this.link) return;
    this.interval(this.#intervalMs);
    void this.link.beat(answerMs);
  }

  /** @param {any} frame what a transport heard */
  heard(frame) {
    if (frame.type === "status_changed") {
      const { type: _, ...change } = frame;
      if (!this.#wants(change.user_id)) return;
      const status = this.book.change(change);
      if (status) this.handlers.tell("status", status);
    } else if (frame.type === "snapshot") {
      const items = frame.items.filter((/** @type {any} */ item) => this.#wants(item.user_id));
      const changed = this.book.snapshot(items, frame.position);
      this.handlers.tell("snapshot", { items, position: frame.position });
      for (const status of changed) this.handlers.tell("status", status);
    } else if (MESSAGES.has(frame.type)) {
      this.mail.take(frame);
    }
    // What a later server says besides is not for us.
  }

  /** What was on its way when somebody was taken off the list is not told. */
  #wants(/** @type {string} */ user) {
    return this.list.open || this.list.has(user);
  }

  /** All that was to be told at once was told. */
  settle() {
    for (const status of this.book.settle()) this.handlers.tell("status", status);
  }

  /**
   * Takes those groups off the list that the server says may not be watched (any longer); the rest
   * of it goes on.
   * @param {unknown} error @returns {boolean} whether that was all that was wrong
   */
  losesGroups(error) {
    const refusal = PresenceError.of(error);
    const names = { everybody: false, users: [], groups: refusal.groups };
    if (refusal.code !== "forbidden" || this.list.remove(names).groups.length === 0) return false;
    if (!this.list.open) this.book.retain((user) => this.list.has(user));
    this.failed(refusal);
    return true;
  }

  /** @param {unknown} error the connection goes on */
  failed(error) {
    this.handlers.tell("error", PresenceError.of(error));
  }

  async #acknowledge(/** @type {string} */ id) {
    try {
      await this.acknowledge(id);
    } catch {
      // It comes again, and is acknowledged then.
    }
  }

  /** @param {string} id */
  async acknowledge(id) {
    if (this.link) return this.link.acknowledge(id);
    return this.wire.call("POST", "v1/messages/ack", { body: { ids: [id] } });
  }

  /** Says a frame that needs a WebSocket. @param {object} frame @returns {Promise<any>} */
  say(frame) {
    const closed = new PresenceError("not_open", "there is no connection now");
    return this.link ? this.link.say(frame) : Promise.reject(closed);
  }

  #tell(/** @type {string} */ state, more = {}) {
    const next = /** @type {any} */ ({ state, transport: this.transport, ...more });
    const same = state === "open" && this.state.state === "open";
    this.state = next;
    if (!same) this.handlers.tell("state", next);
  }

  /** @param {number} ms @param {number} leastMs as the server asked: nothing cuts it short */
  #pause(ms, leastMs) {
    const began = Date.now();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wake = () => {};
        resolve(undefined);
      };
      const timer = setTimeout(done, ms);
      this.#wake = () => {
        if (this.#closing || this.#aside) return done();
        const least = Math.max(leastMs, LIMITS.retryMinMs);
        if (Date.now() - began >= least) done();
      };
    });
  }

  close() {
    if (this.#closing) return;
    this.#closing = true;
    this.link?.leave();
    this.session = undefined;
    this.#wake();
    this.#shown();
  }

  /** @param {PresenceError | undefined} error why, unless we were asked to */
  #stop(error) {
    this.#closing = true;
    this.session = undefined;
    this.#listen(false);
    if (error) error.fatal = true;
    this.#tell("closed", error && { error });
    if (error) this.handlers.tell("error", error);
  }

  /** @param {boolean} on */
  #listen(on) {
    const change = on ? "addEventListener" : "removeEventListener";
    window[change]("online", this.#online);
    window[change]("offline", this.#offline);
    window[change]("pagehide", this.#hide);
    window[change]("pageshow", this.#show);
    document[change]("visibilitychange", this.#visible);
    if (on) this.activity.start();
    else this.activity.stop();
  }

  /** Whatever stands is asked whether it still does; whoever waits need not. */
  #online = () => {
    this.#beatNow();
    this.#wake();
  };

  #offline = () => this.#beatNow(LIMITS.answerOfflineMs);

  /** A page that was frozen finds its connection dead, or its timers late. */
  #visible = () => {
    if (document.visibilityState === "visible") this.#wake();
  };

  /** The page goes: for ever, or into the back-forward cache, where it cannot send heartbeats. */
  #hide = () => {
    this.#aside ??= new Promise((resolve) => (this.#shown = () => resolve(undefined)));
    this.link?.leave();
    this.session = undefined;
    this.#wake();
  };

  /** It came back out of the cache, and logs in anew. */
  #show = () => {
    this.#aside = undefined;
    this.#shown();
  };
}
