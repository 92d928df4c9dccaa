import { PresenceError } from "./errors.js";
import { HttpLink } from "./http.js";
import { LIMITS } from "./limits.js";

/** The long poll: plain requests, which pass wherever pages pass. */
export class PollLink extends HttpLink {
  /** @override @param {AbortSignal} signal */
  async listen(signal) {
    while (!signal.aborted) {
      try {
        await this.#ask(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (this.core.losesGroups(error)) continue;
        if (PresenceError.of(error).code !== "cursor_expired") throw error;
        this.core.book.position = undefined;
      }
    }
  }

  /** @param {AbortSignal} signal */
  async #ask(signal) {
    const { book, list, wire } = this.core;
    const query = list.query();
    const since = book.position;
    if (since !== undefined) {
      query.set("since", String(since));
      query.set("wait_ms", String(LIMITS.pollMs));
    }
    const timeoutMs = LIMITS.pollMs + LIMITS.answerMs;
    const began = Date.now();
    const answer = await wire.call("GET", `v1/changes?${query}`, { signal, timeoutMs });
    if (signal.aborted) return;
    if (answer.full) {
      book.anew();
      this.core.heard({ type: "snapshot", items: answer.items, position: answer.position });
      this.core.settle();
    } else {
      for (const item of answer.items) this.core.heard({ type: "status_changed", ...item });
      book.reach(answer.position);
      // A node that stops answers at once, and would be asked again at once.
      const early = answer.items.length === 0 && Date.now() - began < LIMITS.pollGapMs;
      if (early) await new Promise((resolve) => setTimeout(resolve, LIMITS.pollGapMs));
    }
  }
}
