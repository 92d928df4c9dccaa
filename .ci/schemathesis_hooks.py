"""What schemathesis cannot know by the document alone. `.ci/schemathesis` loads it."""

import os
import subprocess

import schemathesis
from hypothesis import strategies as st

# A wait that is asked for is cut to this: what is answered matters here, not how patiently.
WAIT_MS_MAX = 20
# Waits for a position that nobody reaches take 2 s each, so one call is enough to see the 503.
WAITS_FOR_POSITIONS = "/v1/status/summary"
POSITION_MAX = 10
# Where webhooks lead to: nowhere, as `.invalid` names nothing (RFC 6761). No check calls strangers.
WEBHOOK_URL = "https://webhook.invalid/"
# Of this many calls, none succeeding would be an accident: then the rest was hardly looked at.
UNREACHED_MAX = int(os.environ["CHECK_UNREACHED_MAX"])

# Lines of /v1/import and /v1/heartbeats: schemathesis makes no NDJSON of its own.
LINES = [
    b'{"type":"session_opened","user_id":"eve","occurred_at":"2025-06-15T09:00:00Z",'
    b'"session_id":"0199c5a0-0000-7000-8000-0000000000e1"}',
    b'{"type":"session_closed","user_id":"eve","occurred_at":"2025-06-15T17:00:00Z",'
    b'"session_id":"0199c5a0-0000-7000-8000-0000000000e1","reason":"logout"}',
    b'{"session_id":"0199c5a0-0000-7000-8000-000000000001","idle_ms":5}',
    b'{"session_id":7}',
    b"{}",
    b"[",
    b"",
    b"\xff\x00",
]
schemathesis.openapi.media_type(
    "application/x-ndjson", st.lists(st.sampled_from(LINES), max_size=5).map(b"\n".join)
)


def new_token():
    roles = [f"--role={role}" for role in os.environ["CHECK_ROLES"].split()]
    command = ["rollcall", "token", "--sub=checker", "--ttl=1h", *roles]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


TOKEN = new_token()


@schemathesis.auth(refresh_interval=None)
class Bearer:
    """A logout may revoke the token that asks for it, so it gets one of its own."""

    def get(self, case, context):
        logout = case.operation.path == "/api/users/logout/"
        return new_token() if logout or "revoke_token" in (case.query or {}) else TOKEN

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


def at_most(values, name, limit):
    """Lowers a number; whatever else stands there is sent as it is."""
    value = str(values.get(name))
    if value.isdecimal() and int(value) > limit:
        values[name] = limit


@schemathesis.hook
def before_call(context, case, kwargs):
    for values in (case.query, case.body):
        if not isinstance(values, dict):
            continue
        if int_or_none(values.get("wait_ms")) in range(30_001):
            at_most(values, "wait_ms", WAIT_MS_MAX)
        if case.operation.path != WAITS_FOR_POSITIONS:
            at_most(values, "min_position", POSITION_MAX)
        if str(values.get("url")).lower().startswith("http"):
            values["url"] = WEBHOOK_URL


def int_or_none(value):
    return int(str(value)) if str(value).isdecimal() else None


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """A 503 is a finding, but for the one that our contract answers such a wait with."""
    return not (
        response.status_code == 503
        and isinstance(failure, schemathesis.core.failures.ServerError)
        and response.json().get("code") == "position_not_reached"
    )


@schemathesis.check
class CallsAreReached:
    """That most calls succeed at least once: else their answers were not looked at."""

    def __init__(self):
        self.tested = set()
        self.reached = set()

    def after_response(self, ctx, response, case):
        self.tested.add(case.operation.label)
        if response.status_code < 300:
            self.reached.add(case.operation.label)

    def after_run(self, ctx):
        unreached = sorted(self.tested - self.reached)
        print(f"\nNever successful ({len(unreached)}): {', '.join(unreached)}")
        assert len(unreached) <= UNREACHED_MAX, "too many calls never succeeded"
