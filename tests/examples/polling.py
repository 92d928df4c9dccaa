#!/usr/bin/env python3
"""The polling hook: one call at each interaction, and a look at somebody else now and then.

    polling.py URL TOKEN OTHERS_TOKEN USER here|idle|gone

Uses the polling system's own routes and nothing else. Ends with status 1 where an answer is not
what its clients expect.
"""

import json
import sys
import urllib.request


class Polling:
    def __init__(self, url, token):
        self.url, self.token = url, token

    def call(self, method, path, fields=None):
        request = urllib.request.Request(
            f"{self.url}/api/status{path}",
            data=None if fields is None else json.dumps(fields).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self.token}",
            },
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def interact(self, **fields):
        return self.call("PUT", "", {"device_id": "example", **fields})

    def look(self, user):
        return self.call("GET", f"/{user}")


def check(what, holds, found):
    if not holds:
        sys.exit(f"{what}: {found}")


def seen(what, other, user, status):
    found = other.look(user)
    check(what, found["status"] == status, found)


def here(ana, other, user):
    own = ana.interact()
    check("online", own["status"] == "online" and own["manual_status"] is None, own)
    check("one device", [device["id"] for device in own["devices"]] == ["example"], own)
    seen("seen", other, user, "online")
    ana.interact(manual_status="dnd")
    seen("not to be disturbed", other, user, "dnd")
    own = ana.interact(invisible=True)
    check("one's own truth", own["status"] == "dnd" and own["invisible"], own)
    seen("invisible", other, user, "offline")
    check("nothing else is told", set(other.look(user)) == {"user_id", "status", "last_seen"}, user)
    ana.interact(invisible=False, manual_status="busy")
    seen("back, and busy goes out as dnd", other, user, "dnd")


def idle(ana, other, user):
    seen("busy yields once idle", other, user, "away")
    ana.interact(manual_status=None)
    seen("back", other, user, "online")


def gone(ana, other, user):
    seen("over", other, user, "offline")
    own = ana.interact()
    check("and online again", own["status"] == "online", own)
    never = other.look("never-seen")
    check("never seen", never["status"] == "offline" and never["last_seen"] is None, never)


if __name__ == "__main__":
    URL, TOKEN, OTHERS_TOKEN, USER, PHASE = sys.argv[1:]
    phases = {"here": here, "idle": idle, "gone": gone}
    phases[PHASE](Polling(URL, TOKEN), Polling(URL, OTHERS_TOKEN), USER)
    print(f"polling: {PHASE}: as expected")
