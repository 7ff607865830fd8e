"""A small service on port 8080; integration/loads/notes knows what it answers."""
import gzip
import hashlib
import json
import os
import signal
import socket
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import store

LOG = "/var/log/app/access.log"
log = open(LOG, "a", buffering=1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args):
        log.write("%s %s\n" % (self.client_address[0], format % args))

    def finish(self):
        try:
            super().finish()
        finally:
            store.close()

    def number(self, default):
        query = self.path.partition("?")[2]
        return int(query.partition("n=")[2] or default)

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/":
            self.answer(200, b"<!doctype html><title>lithify</title><p>This page is served from stone.\n", Content_Type="text/html")
        elif path == "/health":
            self.answer(200, b"well")
        elif path == "/notes":
            self.answer(200, json.dumps(store.latest()).encode(), Content_Type="application/json")
        elif path.startswith("/notes/"):
            text = store.get(int(path[7:]))
            self.answer(200, text.encode()) if text is not None else self.answer(404)
        elif path == "/random":
            self.answer(200, os.urandom(min(self.number(1000), 1 << 22)))
        elif path == "/packed":
            self.answer(200, gzip.compress(b"stone " * 5000), Content_Encoding="gzip")
        elif path == "/lookup":
            self.answer(200, str(socket.getaddrinfo("localhost", 80)[0][4][0]).encode())
        elif path == "/hash":
            self.answer(200, hashlib.pbkdf2_hmac("sha256", b"stone", b"salt", self.number(1000)).hex().encode())
        elif path == "/tidy":
            store.tidy()
            self.answer(200, b"tidy")
        elif path == "/fail":
            self.answer(500, b"as it was asked to")
        else:
            self.answer(404)

    do_HEAD = do_GET

    def do_POST(self):
        key = store.add(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        self.answer(201, Location="/notes/%d" % key)

    def do_PUT(self):
        left, digest = int(self.headers.get("Content-Length", 0)), hashlib.sha256()
        with tempfile.TemporaryFile() as file:
            while left > 0:
                part = self.rfile.read(min(left, 65536))
                if not part:
                    break
                file.write(part)
                left -= len(part)
            file.seek(0)
            while part := file.read(65536):
                digest.update(part)
        self.answer(200, digest.hexdigest().encode())

    def do_DELETE(self):
        self.answer(204 if store.remove(int(self.path[7:])) else 404)


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request, client_address):
        log.write("%s went away\n" % client_address[0])


def reopen(*_):
    global log
    old, log = log, open(LOG, "a", buffering=1)
    old.close()


server = Server(("0.0.0.0", 8080), Handler)
signal.signal(signal.SIGHUP, reopen)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
store.close()
