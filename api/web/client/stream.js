import { PresenceError } from "./errors.js";
import { HttpLink } from "./http.js";
import { LIMITS } from "./limits.js";

/** Server-sent events, read by `fetch`: an EventSource sends no token. */
export class StreamLink extends HttpLink {
  /** Whether anything has ever come: some proxies gather answers until they end. */
  #heard = false;

  /** @override @param {AbortSignal} signal */
  async listen(signal) {
    try {
      await this.#read(signal);
    } catch (error) {
      if (signal.aborted || this.core.losesGroups(error)) return;
      const { code, status } = PresenceError.of(error);
      if (code === "cursor_expired") {
        this.core.book.position = undefined;
      } else if (status === 0 && !this.#heard) {
        // The session was opened over HTTP: the server is there.
        throw new PresenceError("blocked", `no stream: ${error}`, { blocked: true });
      } else if (error instanceof PresenceError) {
        throw error;
      } else {
        throw new PresenceError("connection_lost", `the stream broke: ${error}`);
      }
    }
  }

  /** @param {AbortSignal} signal */
  async #read(signal) {
    const { book, list, wire } = this.core;
    const silence = new AbortController();
    const given = () => silence.abort();
    signal.addEventListener("abort", given);
    let timer = setTimeout(given, LIMITS.streamSilenceMs);
    try {
      const headers = { Accept: "text/event-stream", ...lastEvent(book.position) };
      const path = `v1/stream?${list.query()}`;
      const response = await wire.open("GET", path, { signal: silence.signal, headers });
      const reader = response.body?.getReader();
      const events = new Events((event) => this.#event(event));
      for (;;) {
        const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
        clearTimeout(timer);
        if (done || signal.aborted) break;
        this.#heard = true;
        timer = setTimeout(given, LIMITS.streamSilenceMs);
        events.push(value);
      }
      if (!signal.aborted) throw new PresenceError("connection_lost", "the stream ended");
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", given);
    }
  }

  /** @param {{ name: string, data: string, id: string }} event */
  #event({ name, data, id }) {
    if (name === "snapshot") {
      const { items, position } = JSON.parse(data);
      const first = this.core.book.position === undefined;
      if (first) this.core.book.anew();
      this.core.heard({ type: "snapshot", items, position });
      if (first) this.core.settle();
    } else if (name === "status_changed") {
      this.core.heard({ type: "status_changed", ...JSON.parse(data) });
    } else if (id !== "") {
      this.core.book.reach(Number(id));
    }
  }
}

/** @param {number | undefined} position @returns {Record<string, string>} */
function lastEvent(position) {
  return position === undefined ? {} : { "Last-Event-ID": String(position) };
}

/** Makes events of bytes (WHATWG HTML, 9.2.6). */
class Events {
  #decoder = new TextDecoder();
  #rest = "";
  #event = { name: "", data: "", id: "" };
  #tell;

  /** @param {(event: { name: string, data: string, id: string }) => void} tell */
  constructor(tell) {
    this.#tell = tell;
  }

  /** @param {Uint8Array | undefined} bytes */
  push(bytes) {
    this.#rest += this.#decoder.decode(bytes, { stream: true });
    const lines = this.#rest.split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
    if (this.#rest.length + this.#event.data.length > LIMITS.eventChars) {
      throw new PresenceError("too_long", "an event is longer than can be read");
    }
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") {
      this.#tell(this.#event);
      this.#event = { name: "", data: "", id: "" };
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#event.name = value;
    else if (field === "id") this.#event.id = value;
    else if (field === "data") this.#event.data += this.#event.data ? `\n${value}` : value;
  }
}
