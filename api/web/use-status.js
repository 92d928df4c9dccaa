/**
 * A React hook that follows one user's status. React is handed in, so that this file needs no
 * bundler and works with whichever copy the page has:
 *
 *     import * as React from "react";
 *     import { makeUseStatus } from "https://rollcall.example/use-status.js";
 *
 *     const useStatus = makeUseStatus(React);
 *     const Dot = ({ user }) => <i className={useStatus(presence, user)?.status ?? "unknown"} />;
 *
 * While a component uses it the user is watched; whoever was watched already stays so.
 */

/** @typedef {import("./client.js").Presence} Presence */

/**
 * Who is watched by hooks alone, and by how many.
 * @type {WeakMap<Presence, Map<string, number>>}
 */
const counts = new WeakMap();

/**
 * @param {{ useCallback: Function, useSyncExternalStore: Function }} React version 18 or newer
 * @returns {(presence: Presence, user: string) => import("./client.js").Status | undefined}
 */
export function makeUseStatus({ useCallback, useSyncExternalStore }) {
  return function useStatus(presence, user) {
    const subscribe = useCallback(
      (/** @type {() => void} */ changed) => follow(presence, user, changed),
      [presence, user],
    );
    // On a server there is no presence yet.
    return useSyncExternalStore(subscribe, () => presence.statusOf(user), () => undefined);
  };
}

/** @param {Presence} presence @param {string} user @param {() => void} changed */
function follow(presence, user, changed) {
  // First: it throws for what is no name. What it asks for is told later.
  const held = hold(presence, user);
  const off = presence.on("status", ({ user_id }) => user_id === user && changed());
  return () => {
    off();
    if (held) release(presence, user);
  };
}

/** @param {Presence} presence @param {string} user @returns whether the hooks watch this user */
function hold(presence, user) {
  const users = counts.get(presence) ?? new Map();
  counts.set(presence, users);
  const count = users.get(user) ?? 0;
  if (count === 0 && presence.watches(user)) return false;
  if (count === 0) presence.watch(user);
  users.set(user, count + 1);
  return true;
}

/** @param {Presence} presence @param {string} user */
function release(presence, user) {
  const users = counts.get(presence);
  const count = users?.get(user) ?? 0;
  if (count > 1) {
    users?.set(user, count - 1);
  } else {
    users?.delete(user);
    presence.unwatch(user);
  }
}
