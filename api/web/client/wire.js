import { checkUrl } from "./check.js";
import { PresenceError } from "./errors.js";
import { LIMITS } from "./limits.js";

/** @typedef {() => string | Promise<string>} GetToken */

/** Calls over HTTP, with a token that is renewed once the server does not believe it. */
export class Wire {
  #base;
  #getToken;
  #renews;
  /** @type {string | undefined} */
  #token;
  /** @type {string | undefined} the last one that was refused */
  #refused;
  /** @type {Promise<string> | undefined} one question at a time */
  #asking;

  /** @param {string | URL} url @param {string | undefined} token @param {GetToken} [getToken] */
  constructor(url, token, getToken) {
    this.#base = checkUrl(url);
    if (!this.#base.pathname.endsWith("/")) this.#base.pathname += "/";
    this.#token = token;
    this.#getToken = getToken;
    this.#renews = getToken !== undefined;
  }

  get socketUrl() {
    const url = new URL("v1/ws", this.#base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return url;
  }

  /** Whose token it is, as it says itself; nobody knows before there is one. */
  get userId() {
    try {
      const token = this.#token ?? this.#refused ?? "";
      const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
      const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
      return String(JSON.parse(new TextDecoder().decode(bytes)).sub);
    } catch {
      return undefined;
    }
  }

  /** The token is not believed any longer. Whether there may be another one. */
  refuse() {
    this.#refused = this.#token;
    if (this.#renews) this.#token = undefined;
    return this.#renews;
  }

  /** @returns {Promise<string>} */
  async token() {
    if (this.#token !== undefined) return this.#token;
    this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
    return this.#asking;
  }

  async #ask() {
    /** @type {unknown} */
    let token;
    try {
      token = await this.#getToken?.();
    } catch (error) {
      // Whoever gives out tokens cannot be reached, perhaps: it is asked again later.
      throw new PresenceError("token_unavailable", `getToken() failed: ${error}`);
    }
    if (typeof token !== "string" || token === "" || token === this.#refused) {
      const detail = "getToken() has no token, or the one that was refused";
      throw new PresenceError("no_token", detail, { status: 401 });
    }
    this.#token = token;
    return token;
  }

  /**
   * Calls, and reads the answer.
   * @param {string} method @param {string} path without a slash at its head
   * @param {{ body?: unknown, signal?: AbortSignal, timeoutMs?: number }} [options]
   * @returns {Promise<any>}
   */
  async call(method, path, { body, signal, timeoutMs = answerMs() } = {}) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), timeoutMs);
    const given = () => abort.abort();
    signal?.addEventListener("abort", given);
    try {
      const response = await this.open(method, path, { body, signal: abort.signal });
      return await response.json();
    } catch (error) {
      throw error instanceof PresenceError ? error : unreachable(error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", given);
    }
  }

  /**
   * Calls; the answer's body is still to be read.
   * @param {string} method @param {string} path
   * @param {{ body?: unknown, signal?: AbortSignal, headers?: Record<string, string> }} options
   * @returns {Promise<Response>}
   */
  async open(method, path, options) {
    const token = await this.token();
    const response = await this.#fetch(token, method, path, options);
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    // Another call may have renewed it meanwhile.
    if (this.#token === token && !this.refuse()) throw problem;
    const again = await this.#fetch(await this.token(), method, path, options);
    if (again.ok) return again;
    throw await problemOf(again);
  }

  /**
   * Calls while the page goes away: nobody hears the answer.
   * @param {string} method @param {string} path
   */
  forget(method, path) {
    if (this.#token === undefined) return;
    this.#fetch(this.#token, method, path, { keepalive: true }).catch(() => {
      // The session's lease ends it, if this did not.
    });
  }

  /**
   * @param {string} token @param {string} method @param {string} path
   * @param {{ body?: unknown, signal?: AbortSignal, headers?: Record<string, string>,
   *   keepalive?: boolean }} options
   */
  async #fetch(token, method, path, { body, signal, headers = {}, keepalive = false }) {
    /** @type {Record<string, string>} */
    const all = { ...headers, Authorization: `Bearer ${token}` };
    if (body !== undefined) all["Content-Type"] = "application/json";
    const text = body === undefined ? undefined : JSON.stringify(body);
    const init = { method, headers: all, body: text, signal, keepalive };
    try {
      return await fetch(new URL(path, this.#base), { ...init, cache: "no-store" });
    } catch (error) {
      throw unreachable(error);
    }
  }
}

/** Where the browser is sure that there is no network, little is waited for. */
function answerMs() {
  return navigator.onLine ? LIMITS.answerMs : LIMITS.answerOfflineMs;
}

/** @param {unknown} error */
function unreachable(error) {
  return new PresenceError("unreachable", `the server cannot be reached: ${error}`);
}

/** @param {Response} response */
async function problemOf(response) {
  /** @type {any} */
  let body = {};
  try {
    body = await response.json();
  } catch {
    // Not ours: a proxy's page.
  }
  const after = body.retry_after_ms ?? Number(response.headers.get("retry-after") ?? 0) * 1000;
  return new PresenceError(body.code ?? "http_error", body.detail ?? `HTTP ${response.status}`, {
    status: response.status,
    retryAfterMs: Number.isFinite(after) ? after : 0,
    reason: body.reason,
    groups: body.groups,
  });
}
