/** Every limit and interval of the client, in one place. Durations in milliseconds. */
export const LIMITS = Object.freeze({
  /** Users on the watch list, so that it fits into an address: every transport takes it. */
  users: 1_000,
  /** Groups on the watch list. */
  groups: 100,
  /** A message's text, in bytes: longer ones the server refuses. */
  bodyBytes: 16_384,
  /** A frame, in bytes: a longer one would cost the connection. */
  frameBytes: 65_536,
  /** Users named by one frame: with the longest names it stays below 64 KiB. */
  usersPerFrame: 400,
  /** Messages whose handlers have not run yet; beyond, they come again later. */
  messagesWaiting: 1_000,
  /** Messages remembered as handled, so that a second delivery is acknowledged in silence. */
  messagesRemembered: 1_000,
  /** Frames whose answer is waited for. */
  unanswered: 100,
  /** Characters of one server-sent event. */
  eventChars: 64 * 1024 * 1024,
  /** Until a connection stands, an HTTP call or a frame is answered. */
  answerMs: 10_000,
  /** The same, where the browser believes that there is no network. */
  answerOfflineMs: 2_000,
  /** A stream says something every 15 s. */
  streamSilenceMs: 40_000,
  /** How long a poll waits at the server. */
  pollMs: 25_000,
  /** After a poll that did not wait and brought nothing. */
  pollGapMs: 1_000,
  /** Back-off: a random part of `base * 2^n`, at most `max`, never below `min`. */
  retryMinMs: 100,
  retryBaseMs: 500,
  retryMaxMs: 30_000,
  /** A connection that stood so long makes the next failure the first one. */
  stableMs: 5_000,
  /** Failures of one transport in a row, while the server could be called, before the next one. */
  failuresPerTransport: 2,
  /** After this, whoever fell back begins with the first transport when it connects again. */
  fallbackMs: 600_000,
  /** Signs of life of the person are looked at once in this time. */
  activityMs: 1_000,
  /** When the person is idle, until the server has said it. */
  idleAfterMs: 300_000,
});
