/** Statuses after which the same request would be answered the same. */
const FINAL = new Set([400, 401, 403, 404, 405, 409, 413, 415, 422]);

/** What went wrong, in the server's words where it is the server that says so. */
export class PresenceError extends Error {
  /**
   * @param {string} code stable, snake_case: the server's, or `unreachable`, `connection_lost`,
   *   `unanswered`, `not_open`, `token_unavailable`, `blocked`
   * @param {string} detail for people
   * @param {{ status?: number, retryAfterMs?: number, reason?: string, groups?: string[],
   *   blocked?: boolean }} more
   */
  constructor(code, detail, more = {}) {
    const { status = 0, retryAfterMs = 0, reason, groups = [], blocked = false } = more;
    super(detail);
    this.name = "PresenceError";
    this.code = code;
    /** The HTTP status, or 0. */
    this.status = status;
    /** How long the server wants to be left alone. */
    this.retryAfterMs = retryAfterMs;
    /** Why a session ended. */
    this.reason = reason;
    /** Groups that may not be watched, and are on the watch list no longer. */
    this.groups = groups;
    /** Something between here and there lets HTTP through, but not this transport. */
    this.blocked = blocked;
    /** The client has stopped because of it. */
    this.fatal = false;
  }

  /** Whether trying again would bring the same. */
  get final() {
    return FINAL.has(this.status);
  }

  /** @param {unknown} error @returns {PresenceError} */
  static of(error) {
    if (error instanceof PresenceError) return error;
    const other = new PresenceError("internal", String(error));
    other.cause = error;
    return other;
  }
}
