#!/usr/bin/env python3
"""A chat's user, and the administrator who watches.

    chat_admin.py URL USER_TOKEN ADMIN_TOKEN USER arrive|silent|leave

Uses the chat's own routes and nothing else. Ends with status 1 where an answer is not what the
chat expects.
"""

import json
import sys
import urllib.error
import urllib.request


class Chat:
    def __init__(self, url, token):
        self.url, self.token = url, token

    def call(self, method, path, fields=None):
        """(status, answer)"""
        request = urllib.request.Request(
            f"{self.url}/api/users/{path}",
            data=None if fields is None else json.dumps(fields).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self.token}",
            },
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, path):
        return self.call("GET", path)[1]

    def post(self, path, **fields):
        return self.call("POST", path, fields)

    def status_of(self, user):
        return self.get(f"admin/users/{user}/online-status/")["online_status"]

    def online(self):
        return [user["id"] for user in self.get("admin/users/online/")["users"]]


def check(what, holds, found=""):
    if not holds:
        sys.exit(f"{what}: {found}")


def arrive(ana, admin, user):
    status, answer = ana.post("login/", username=user, password="never kept")
    check("login", status == 200 and answer["token"] == ana.token, answer)
    status, answer = ana.post("heartbeat/")
    check("heartbeat", status == 200, answer)
    check("the admin sees it at once", admin.status_of(user) == "online")
    check("in the list of those online", user in admin.online(), admin.online())
    page, met = 1, []
    while True:
        answer = admin.get(f"admin/users/?per_page=1&page={page}")
        met += [one["id"] for one in answer["users"]]
        if page * answer["per_page"] >= answer["count"]:
            break
        page += 1
    everybody = [one["id"] for one in admin.get("all-users/")["users"]]
    check("page by page as at once", met == everybody and user in met, (met, everybody))
    for wanted in ["away", "online"]:
        path = f"admin/users/{user}/set-online-status/"
        status, answer = admin.post(path, status=wanted)
        check(f"set {wanted}", status == 200 and answer["online_status"] == wanted, answer)


def silent(ana, admin, user):
    check("inactive", admin.status_of(user) == "offline", admin.status_of(user))
    check("not in the list", user not in admin.online(), admin.online())
    ana.post("heartbeat/")
    check("and back", admin.status_of(user) == "online", admin.status_of(user))


def leave(ana, admin, user):
    status, answer = ana.post("logout/")
    check("logout", status == 200, answer)
    check("the admin sees it at once", admin.status_of(user) == "offline")
    status, answer = ana.post("heartbeat/")
    check("the token is no longer good", status == 401, answer)
    check("and opened nothing", admin.status_of(user) == "offline")


if __name__ == "__main__":
    URL, USER_TOKEN, ADMIN_TOKEN, USER, PHASE = sys.argv[1:]
    phases = {"arrive": arrive, "silent": silent, "leave": leave}
    phases[PHASE](Chat(URL, USER_TOKEN), Chat(URL, ADMIN_TOKEN), USER)
    print(f"chat: {PHASE}: as expected")
