"""An application in one file, without any package: a worker that speaks the JSON
codec. The first half is yours to change, the second half is the protocol.

    workers: { app: { command: python3 worker.py, codec: json } }
"""

import json
import os
import socket
import struct
import sys
import time
import traceback
import zlib

# ---- What the application decides -------------------------------------------


def answer(event):
    """Answers one event: a result, an error or a disconnect."""
    match event["event"]:
        case "connect":
            data = event.get("data")
            return result(user=data.get("user", "guest") if isinstance(data, dict) else "guest")
        case "subscribe":
            return refuse(403, "this channel is secret") if event["channel"] == "secret" else result()
        case "publish":
            return refuse(400, "no spam please") if "spam" in json.dumps(event["data"]) else result()
        case "refresh" | "sub_refresh":
            return result(expire_at=int(time.time()) + 3600)
        case "rpc":
            return rpc(event["method"], event.get("data"), event)
        case kind:
            return refuse(108, f"nobody answers {kind} here")


def rpc(method, data, event):
    match method:
        case "add":
            return result(data=data["a"] + data["b"])
        case "echo":
            return result(data=data)
        case "whoami":
            return result(data={"user": event["user"], "client": event["client"]})
        case "publish":
            return result(data=call("centrifuge.Publish", {"channel": data["channel"], "data": data["data"]}))
        case _:
            return refuse(404, f"there is no method {method}")


def result(**fields):
    return {"result": fields}


def refuse(code, message):
    return {"error": {"code": code, "message": message}}


# ---- The protocol: frames on stdin and stdout, calls back to the server ------

CONTROL, JSON, ERROR = 0x01, 0x08, 0x40


def encode(value):
    """Returns the value as JSON without spaces: it is sent to every subscriber."""
    return json.dumps(value, separators=(",", ":")).encode()


def receive(stream):
    """Returns flags, options and payload of the next frame, or None at the end."""
    head = stream.read(12)
    if len(head) < 12:
        return None
    words, flags, size = struct.unpack("<BBI", head[:6])
    count = (words & 15) - 3
    options = struct.unpack(f"<{count}I", stream.read(4 * count))
    return flags, options, stream.read(size)


def send(stream, flags, options, payload):
    head = struct.pack("<BBI", 0x10 | (3 + len(options)), flags, len(payload))
    head += struct.pack(f"<IH{len(options)}I", zlib.crc32(head), 0, *options)
    stream.write(head + payload)
    stream.flush()


class Server:
    """The connection for calls back to the server, opened by the first one."""

    stream = None
    sequence = 0


def call(method, arguments):
    """Calls a method of the server, e.g. centrifuge.Publish, and returns its result."""
    if Server.stream is None:
        scheme, _, where = os.environ.get("RR_RPC", "tcp://127.0.0.1:6001").partition("://")
        if scheme == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(where)
        else:
            host, _, port = where.rpartition(":")
            connection = socket.create_connection((host, int(port)))
        Server.stream = connection.makefile("rwb")
    Server.sequence += 1
    name = method.encode()
    send(Server.stream, JSON, (Server.sequence, len(name)), name + encode(arguments))
    frame = receive(Server.stream)
    if frame is None:
        Server.stream = None
        raise ConnectionError("the server has closed the RPC connection")
    flags, _, payload = frame
    body = payload[len(name):]
    if flags & ERROR:
        raise RuntimeError(body.decode())
    response = json.loads(body)
    if "error" in response:
        raise RuntimeError(response["error"]["message"])
    return response["result"]


def main():
    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # stdout is for frames: what is printed goes to the log instead
    while (frame := receive(jobs)) is not None:
        flags, _, payload = frame
        message = json.loads(payload)
        if flags & CONTROL:
            if message.get("stop"):
                return
            send(answers, CONTROL, (), encode({"pid": os.getpid()}))
            continue
        try:
            send(answers, JSON, (0,), encode(answer(message)))
        except Exception:
            send(answers, ERROR, (), traceback.format_exc().encode())  # goes to the log; the client may try again


main()
