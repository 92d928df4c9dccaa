import { bytesOf } from "./check.js";
import { PresenceError } from "./errors.js";
import { LIMITS } from "./limits.js";

/** @typedef {import("./core.js").Core} Core */

/** Breaks off, as a lost network does: the session waits for us. 1000 would be a logout. */
const BROKEN = 4000;

/** One WebSocket: the connection is the session. */
export class SocketLink {
  canSend = true;
  #core;
  /** @type {WebSocket | undefined} */
  #socket;
  #left = false;
  /** What is to be watched was said. */
  #begun = false;
  /** `hello` was heard. */
  #open = false;
  /** Calls of `watch` that are not answered yet. */
  #telling = 0;
  /** @type {any} an error that answers nothing: why the server is about to close */
  #refusal;
  #ref = 0;
  /** @type {Map<number, { done: (frame: any) => void, failed: (error: Error) => void }>} */
  #asked = new Map();
  /** @type {(code: number) => void} */
  #end = () => {};

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /** Until the connection has ended, which is an error unless we left. */
  async run() {
    const { ticket } = await this.#core.wire.call("POST", "v1/ws/ticket");
    if (this.#left) return;
    // Browsers set no headers on a WebSocket, and a token has no place in an address.
    const socket = new WebSocket(this.#core.wire.socketUrl, ["rollcall.v1", `ticket.${ticket}`]);
    this.#socket = socket;
    const ended = new Promise((resolve) => (this.#end = resolve));
    socket.onopen = () => this.#begin();
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    socket.onclose = ({ code }) => this.#end(code);
    const late = setTimeout(() => this.#drop(), LIMITS.answerMs);
    this.#onHello = () => clearTimeout(late);
    const code = await ended;
    clearTimeout(late);
    const unanswered = new PresenceError("unanswered", "the connection ended before the answer");
    for (const { failed } of this.#asked.values()) failed(unanswered);
    this.#asked.clear();
    if (!this.#left) throw this.#why(code);
  }

  #onHello = () => {};

  /** All at once: the server reads it in this order, without a round trip for each. */
  #begin() {
    const { session, device, activity, book, list, joined, left } = this.#core;
    const about = { device, idle_ms: activity.idleMs };
    if (!session?.resumeToken || !this.#core.listTold) book.position = undefined;
    if (book.position === undefined) book.anew();
    if (session?.resumeToken) {
      const { id: session_id, resumeToken: resume_token } = session;
      const position = book.position;
      // Its answers are no news: what it is refused for, `hello` shows.
      this.#write({ type: "resume", ref: 0, session_id, resume_token, position, ...about });
    } else {
      this.#write({ type: "open", ...about });
    }
    this.#begun = true;
    for (const group of joined) this.#quietly({ type: "join", group });
    for (const group of left) this.#quietly({ type: "leave", group });
    this.watch(list.all());
  }

  /** @param {any} frame */
  #hear(frame) {
    switch (frame.type) {
      case "hello":
        return this.#hello(frame);
      case "ack":
        return this.#answer(frame)?.done(frame);
      case "error":
        return this.#refused(frame);
      default:
        return this.#core.heard(frame);
    }
  }

  /** A second one says that a wish to resume was heard late: it counts. */
  #hello(/** @type {any} */ frame) {
    this.#open = true;
    this.#onHello();
    const { session_id: id, resume_token: resumeToken } = frame;
    this.#core.opened({ id, resumeToken }, frame.heartbeat_interval_ms);
    // Resuming says nothing of the person.
    if (frame.resumed) this.beat(LIMITS.answerMs);
  }

  #refused(/** @type {any} */ frame) {
    const asked = this.#answer(frame);
    const { code, detail, retry_after_ms: retryAfterMs, groups } = frame;
    const error = new PresenceError(code, detail, { retryAfterMs, groups });
    const { book } = this.#core;
    if (asked) {
      asked.failed(error);
    } else if (frame.ref === 0) {
      if (code !== "cursor_expired") return;
      book.position = undefined;
      book.anew();
    } else {
      this.#refusal = frame;
      if (this.#open && code !== "too_slow") this.#core.failed(error);
    }
  }

  #answer(/** @type {any} */ { ref }) {
    const asked = this.#asked.get(ref);
    this.#asked.delete(ref);
    return asked;
  }

  /** @param {number} code @returns {PresenceError} */
  #why(code) {
    const refusal = this.#refusal;
    if (code === 4401) {
      return new PresenceError("token_ended", "the token ended or was revoked", { status: 401 });
    }
    if (code === 4410) return new PresenceError("session_closed", "the session is over");
    if (code === 4409) return new PresenceError("session_taken", "another connection has it");
    if (code === 1008 && refusal && !this.#open) {
      return new PresenceError(refusal.code, refusal.detail, { status: 422 });
    }
    if (this.#open) {
      const more = { retryAfterMs: refusal?.retry_after_ms };
      return new PresenceError("connection_lost", `the connection ended with ${code}`, more);
    }
    // The ticket came over HTTP: the server is there.
    return new PresenceError("blocked", `no WebSocket: ${code}`, { blocked: true });
  }

  #write(/** @type {object} */ frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  /** Ends a connection that does not answer; that would take its own time to notice. */
  #drop() {
    this.#close(BROKEN, 1006);
  }

  /** What comes after it is for nobody. @param {number} code @param {number} end */
  #close(code, end) {
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = null;
      this.#socket.close(code);
    }
    this.#end(end);
  }

  /** Says something that is answered. @param {object} frame @returns {Promise<any>} */
  say(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      return Promise.reject(new PresenceError("not_open", "there is no connection now"));
    }
    if (this.#asked.size >= LIMITS.unanswered) {
      return Promise.reject(new PresenceError("too_fast", "too much waits for an answer"));
    }
    const ref = ++this.#ref;
    const text = JSON.stringify({ ...frame, ref });
    if (bytesOf(text) > LIMITS.frameBytes) {
      const most = `a frame is at most ${LIMITS.frameBytes} bytes long`;
      return Promise.reject(new RangeError(most));
    }
    this.#socket.send(text);
    return new Promise((done, failed) => this.#asked.set(ref, { done, failed }));
  }

  /**
   * What the server refuses of it is told as an error; that the connection ended is told anyway.
   * @param {any} frame @returns {Promise<boolean>} whether it was answered
   */
  async #quietly(frame) {
    try {
      await this.say(frame);
      return true;
    } catch (error) {
      if (frame.type === "watch" && this.#core.losesGroups(error)) return this.#watchRest(frame);
      const { code } = PresenceError.of(error);
      const ended = code === "unanswered" || code === "not_open";
      // Of its session's end the connection's end tells.
      if (!ended && code !== "session_closed") this.#core.failed(error);
      return !ended;
    }
  }

  /** One group that is refused must not take the others along. @param {any} frame */
  #watchRest(frame) {
    const listed = this.#core.list.all().groups;
    const groups = frame.groups.filter((/** @type {string} */ group) => listed.includes(group));
    return groups.length === 0 || this.#quietly({ ...frame, groups });
  }

  /** @param {import("./list.js").Names} names */
  async watch({ everybody, users, groups }) {
    const frames = everybody ? [{ type: "watch" }] : [];
    for (let at = 0; !everybody && at < users.length; at += LIMITS.usersPerFrame) {
      frames.push({ type: "watch", users: users.slice(at, at + LIMITS.usersPerFrame) });
    }
    if (!everybody && groups.length > 0) frames.push({ type: "watch", groups });
    if (!this.#begun || frames.length === 0) return;
    this.#telling += 1;
    const told = await Promise.all(frames.map((frame) => this.#quietly(frame)));
    this.#telling -= 1;
    if (told.includes(false) || this.#telling > 0) return;
    this.#core.listTold = true;
    this.#core.settle();
  }

  /** @param {import("./list.js").Names} names */
  async unwatch({ everybody, users, groups }) {
    if (!this.#begun) return;
    if (everybody) {
      await this.#quietly({ type: "unwatch" });
      return;
    }
    const frames = groups.length > 0 ? [{ type: "unwatch", groups }] : [];
    for (let at = 0; at < users.length; at += LIMITS.usersPerFrame) {
      frames.push({ type: "unwatch", users: users.slice(at, at + LIMITS.usersPerFrame) });
    }
    await Promise.all(frames.map((frame) => this.#quietly(frame)));
  }

  /** A sign of life, and whether the connection still is one. @param {number} answerMs */
  async beat(answerMs) {
    if (!this.#open) return;
    const late = setTimeout(() => this.#drop(), answerMs);
    await this.#quietly({ type: "heartbeat", idle_ms: this.#core.activity.idleMs });
    clearTimeout(late);
  }

  /** @param {string} id */
  acknowledge(id) {
    return this.say({ type: "ack", id });
  }

  /** Logs out: at once, and without waiting, as the page may be going. */
  leave() {
    this.#left = true;
    this.#close(1000, 1000);
  }
}
