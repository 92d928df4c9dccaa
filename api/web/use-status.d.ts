// Types of /use-status.js.

import type { Presence, Status } from "./client.js";

/** What the hook is made of: React, version 18 or newer. */
export interface ReactParts {
  useCallback: <F extends (...args: never[]) => unknown>(f: F, deps: readonly unknown[]) => F;
  useSyncExternalStore: <T>(
    subscribe: (changed: () => void) => () => void,
    get: () => T,
    getOnServer?: () => T,
  ) => T;
}

/** A hook that follows one user's status; `undefined` while nothing is known. */
export function makeUseStatus(
  React: ReactParts,
): (presence: Presence, user: string) => Status | undefined;
