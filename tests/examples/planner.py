#!/usr/bin/env python3
"""A planner's backend: may this timer start?

    planner.py URL SERVICE_TOKEN USER here|gone

Uses the planner's own route and nothing else. Ends with status 1 where an answer is not what a
planner expects.
"""

import json
import sys
import urllib.parse
import urllib.request


class Planner:
    def __init__(self, url, token):
        self.url, self.token = url, token

    def ask(self, action, user, task, form=False, **more):
        """One action. The planner has always looked at `success`, never at the status code."""
        fields = {"action": action, "user_id": user, "task_id": task, **more}
        if form:
            path, kind = ".php", "application/x-www-form-urlencoded"
            body = urllib.parse.urlencode(fields, doseq=True)
        else:
            path, kind, body = "", "application/json", json.dumps(fields)
        request = urllib.request.Request(
            f"{self.url}/api/daily_planner_workflow{path}",
            data=body.encode(),
            headers={"Content-Type": kind, "Authorization": f"Bearer {self.token}"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


def check(what, holds, answer):
    if not holds:
        sys.exit(f"{what}: {answer}")


def here(planner, user):
    """A day's work of somebody who is online."""
    for number, action in enumerate(["start", "pause", "resume", "stop"]):
        answer = planner.ask(action, user, 4711, form=number % 2 == 1)
        check(action, answer["success"] and answer["status"] == "online", answer)
    first = planner.ask("start", user, "report")
    check("a new task", first["success"], first)
    second = planner.ask("start", user, "report")
    check("a second timer of one task", not second["success"], second)
    other = planner.ask("start", user, "review", required_status=["online", "away"])
    check("another task beside it", other["success"], other)
    for task in ["report", "review"]:
        answer = planner.ask("stop", user, task)
        check("stop", answer["success"] and answer["position"] > first["position"], answer)


def gone(planner, user):
    """Nobody works offline."""
    answer = planner.ask("start", user, 4711)
    refused = not answer["success"] and answer["error"] == "Invalid user status"
    check("refused", refused, answer)
    check("found", answer["current_status"] == "offline", answer)
    check("required", answer["required_status"] == "online", answer)
    check("explained", "offline" in answer["message"], answer)


if __name__ == "__main__":
    URL, TOKEN, USER, PHASE = sys.argv[1:]
    {"here": here, "gone": gone}[PHASE](Planner(URL, TOKEN), USER)
    print(f"planner: {PHASE}: as expected")
