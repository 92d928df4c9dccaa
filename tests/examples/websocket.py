#!/usr/bin/env python3
"""Two tabs of one user, another user, and an administrator, over the replaced WebSocket.

    websocket.py URL USER_TOKEN OTHERS_TOKEN ADMIN_TOKEN USER OTHER all

Uses /ws/user/ and /ws/consultation/{id}/ and nothing else, and no library but Python's own: the
hundred lines of RFC 6455 that a client needs. Ends with status 1 where something is not what its
clients expect.
"""

import base64
import hashlib
import json
import os
import socket
import struct
import sys
from urllib.parse import urlsplit

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocket:
    def __init__(self, url, path, token):
        host, port = urlsplit(url).hostname, urlsplit(url).port
        self.stream = socket.create_connection((host, port), timeout=10)
        self.buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall(
            f"GET {path}?token={token} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = self.until(b"\r\n\r\n").decode()
        check("upgraded", head.startswith("HTTP/1.1 101 "), head)
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        check("the server knows the protocol", accept in head, head)

    def until(self, end):
        while end not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(end, 1)
        return head

    def more(self):
        read = self.stream.recv(65536)
        check("the connection is open", read)
        self.buffer += read

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def write(self, opcode, payload):
        """One frame; what a client sends is masked."""
        length, mask = len(payload), os.urandom(4)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        else:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        self.stream.sendall(head + mask + masked)

    def read(self):
        """(opcode, payload) of one frame; the server does not split its messages."""
        first, length = self.take(2)
        check("one whole frame", first & 0x80)
        if length == 126:
            (length,) = struct.unpack("!H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.take(8))
        return first & 0x0F, self.take(length)

    def send(self, **frame):
        self.write(TEXT, json.dumps(frame).encode())

    def next(self):
        while True:
            opcode, payload = self.read()
            if opcode == PING:
                self.write(PONG, payload)
            elif opcode == TEXT:
                return json.loads(payload)
            else:
                sys.exit(f"a frame that was not expected: {opcode} {payload}")

    def find(self, kind, **members):
        """The next frame of that type that has these members."""
        while True:
            frame = self.next()
            check("no error", frame["type"] != "error", frame)
            if frame["type"] == kind and members.items() <= frame.items():
                return frame

    def presence(self, user, online):
        return self.find("status_changed", data={"user_id": user, "is_online": online})

    def close(self):
        self.write(CLOSE, struct.pack("!H", 1000))
        while True:
            opcode, _ = self.read()
            if opcode == CLOSE:
                self.stream.close()
                return


def check(what, holds, found=""):
    if not holds:
        sys.exit(f"{what}: {found}")


def two_tabs(url, token, others_token, user, other):
    first = WebSocket(url, "/ws/user/", token)
    check("hello comes first", first.next()["type"] == "hello")
    first.presence(user, True)
    second = WebSocket(url, "/ws/user/", token)
    second.presence(user, True)
    them = WebSocket(url, "/ws/user/", others_token)
    them.presence(user, True)
    for tab in [first, second]:
        tab.presence(other, True)
    them.send(type="send", to=user, body="hello", ref="m1")
    sent = them.find("ack", ref="m1")
    for tab in [first, second]:
        check("both tabs have it", tab.find("message", body="hello")["id"] == sent["id"])
    second.send(type="ack", id=sent["id"], ref="a1")
    second.find("ack", ref="a1")
    second.close()
    first.send(type="ping")
    first.find("pong")
    first.close()
    them.presence(user, False)
    return them


def consultation(url, token, others_token, user, other):
    one = WebSocket(url, "/ws/consultation/42/", token)
    one.presence(user, True)
    two = WebSocket(url, "/ws/consultation/42/", others_token)
    two.presence(user, True)
    one.presence(other, True)
    one.send(type="send", group="consultation:42", body="good morning")
    check("from whom", two.find("group", body="good morning")["from"] == user)
    two.close()
    return one


def broadcast(url, admin_token, *listeners):
    admin = WebSocket(url, "/ws/user/", admin_token)
    admin.send(type="broadcast", body="fire drill")
    for listener in listeners:
        listener.find("broadcast", body="fire drill")
        listener.close()
    admin.close()


if __name__ == "__main__":
    URL, TOKEN, OTHERS_TOKEN, ADMIN_TOKEN, USER, OTHER, _ = sys.argv[1:]
    them = two_tabs(URL, TOKEN, OTHERS_TOKEN, USER, OTHER)
    one = consultation(URL, TOKEN, OTHERS_TOKEN, USER, OTHER)
    broadcast(URL, ADMIN_TOKEN, them, one)
    print("websocket: all: as expected")
