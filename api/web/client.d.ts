// Types of /client.js, which says how everything behaves.

export type StatusName = "online" | "away" | "busy" | "dnd" | "offline";

/** What is known of a user. */
export interface Status {
  user_id: string;
  status: StatusName;
  /** When it began, RFC 3339. `null`: nothing is told of this user any more. */
  since: string | null;
  /** Latest heartbeat or login of any session. */
  last_seen: string | null;
  /** What the claim that decides says. */
  text?: string;
  /** For the user itself: others are shown `offline`. */
  invisible?: boolean;
}

/** How things stand, of all watched or of those newly watched. */
export interface Snapshot {
  items: Status[];
  position: number;
}

export interface Message {
  type: "message" | "notification" | "broadcast" | "group";
  id: string;
  body: string;
  from?: string;
  group?: string;
  title?: string;
  created_at: string;
}

export type TransportName = "websocket" | "sse" | "poll";

/** Where the connection is. */
export interface State {
  state: "connecting" | "open" | "retrying" | "closed";
  transport: TransportName;
  /** While `retrying`: until the next attempt. */
  retry_in_ms?: number;
  /** Why it is `retrying` or `closed`. */
  error?: PresenceError;
}

/** A user, users, or users and the members of groups. */
export type Names =
  | string
  | readonly string[]
  | { users?: readonly string[]; groups?: readonly string[] };

export interface Device {
  id?: string;
  kind?: "web" | "mobile" | "desktop" | "service" | "other";
  label?: string;
}

export interface Options {
  /** The server, absolute or as a page has it (`/presence/`); by default where the module is from. */
  url?: string | URL;
  /** A token; one of these two is needed. */
  token?: string;
  /** Asked for a token, and for another one when that is not believed any longer. */
  getToken?: () => string | Promise<string>;
  /** What this page runs on; `kind` is `web` by default. */
  device?: Device;
  /** When to say that the person is idle; by default the server's `away_after_ms`. */
  idleAfterMs?: number;
  /** Which transports, in this order. */
  transports?: readonly TransportName[];
}

export interface Events {
  status: Status;
  snapshot: Snapshot;
  message: Message;
  notification: Message;
  broadcast: Message;
  group: Message;
  state: State;
  error: PresenceError;
}

/** The names of all events. */
export const EVENTS: readonly (keyof Events)[];

/** The ways to connect, best first. */
export const TRANSPORTS: readonly TransportName[];

/** Every limit and interval of the client; durations in milliseconds. */
export const LIMITS: Readonly<Record<string, number>>;

/** What went wrong, in the server's words where it is the server that says so. */
export class PresenceError extends Error {
  constructor(
    code: string,
    detail: string,
    more?: {
      status?: number;
      retryAfterMs?: number;
      reason?: string;
      groups?: string[];
      blocked?: boolean;
    },
  );
  /** Stable, snake_case. */
  code: string;
  /** The HTTP status, or 0. */
  status: number;
  /** How long the server wants to be left alone. */
  retryAfterMs: number;
  /** Why a session ended. */
  reason: string | undefined;
  /** With `forbidden`: groups that may not be watched (any longer); they are off the watch list. */
  groups: string[];
  /** Something lets HTTP through, but not this transport. */
  blocked: boolean;
  /** The client has stopped because of it. */
  fatal: boolean;
  /** Whether trying again would bring the same. */
  get final(): boolean;
  static of(error: unknown): PresenceError;
}

/** Logs in and stays connected until `close()`. Throws a TypeError for options that are none. */
export function connect(options: Options): Presence;

/** A connection that comes back. */
export class Presence {
  constructor(options: Options);
  /** Resolved when the client has stopped. */
  readonly closed: Promise<void>;
  /** Where the connection is: the latest `state`. */
  get state(): State;
  /** Whose presence it is, once there is a token. */
  get userId(): string | undefined;
  /** The session's name, while there is one. */
  get sessionId(): string | undefined;
  /** Adds a handler; what it returns takes it off again. TypeError: no such event, no function. */
  on<Name extends keyof Events>(event: Name, handler: (detail: Events[Name]) => unknown): () => void;
  /**
   * Adds to the watch list; left out: everybody. Throws, and adds nothing: TypeError for what is no
   * name (1 to 128 of `A-Z a-z 0-9 . _ @ : + | -`), RangeError above 1,000 users or 100 groups.
   */
  watch(who?: Names): void;
  /** Takes off the watch list; left out: all of it. TypeError, and nothing done: what is no name. */
  unwatch(who?: Names): void;
  /** Whether a user is on the watch list by name, or everybody is. TypeError: that is no name. */
  watches(user: string): boolean;
  /** What was last told of a watched user. */
  statusOf(user: string): Status | undefined;
  /** What was last told of all watched. */
  statuses(): Status[];
  /**
   * Sends a message to a user or to a group, over a WebSocket. Rejected with a PresenceError: what
   * the server says, `not_open`, `unanswered` (perhaps it arrived), `too_fast` while 100 wait for
   * their answers (the server takes 50 frames a second, 200 at once). Nothing is sent, RangeError:
   * above 16,384 bytes; TypeError: to what is no name.
   */
  send(to: string | { group: string }, body: string): Promise<{ id?: string }>;
  /** Acknowledges a message; by default that is done when its handlers have ended well. */
  ack(id: string): Promise<void>;
  /** Is in a group while connected. */
  join(group: string): Promise<void>;
  /** Stays out, also of a group that the token names. */
  leave(group: string): Promise<void>;
  /** Asserts one's own status; `null` takes that back. */
  setManual(
    status: Exclude<StatusName, "offline"> | null,
    more?: { text?: string; ttlMs?: number },
  ): Promise<Status>;
  /** Is shown to others as offline. */
  setInvisible(invisible: boolean): Promise<Status>;
  /** Logs out and stops. */
  close(): Promise<void>;
}
