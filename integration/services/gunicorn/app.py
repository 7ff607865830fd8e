"""A WSGI application on port 8080; integration/loads/gunicorn and its other one know what it answers."""
import hashlib
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from urllib.parse import parse_qs

# What is larger goes to a temporary file, as frameworks do with uploads.
IN_MEMORY = 200_000


def digest(environ):
    left, sha = int(environ.get("CONTENT_LENGTH") or 0), hashlib.sha256()
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file:
        while left > 0 and (part := environ["wsgi.input"].read(min(left, 65536))):
            file.write(part)
            left -= len(part)
        file.seek(0)
        while part := file.read(65536):
            sha.update(part)
    return sha.hexdigest()


def copied():
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy2("/srv/app/app.py", folder + "/copy")
        os.rename(folder + "/copy", folder + "/moved")
        with open(folder + "/moved", "r+b") as file:
            file.truncate(100)
            os.fsync(file.fileno())
        return str(os.stat(folder + "/moved").st_size)


def counted():
    # A lock between processes is a semaphore of the C library's, which gives it a name by a link.
    with multiprocessing.get_context("fork").Lock():
        threads = [threading.Thread(target=time.sleep, args=(0.2,)) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return str(len(threads))


def answer(environ):
    path, number = environ["PATH_INFO"], int(parse_qs(environ.get("QUERY_STRING", "")).get("n", ["1000"])[0])
    if environ["REQUEST_METHOD"] in ("PUT", "POST"):
        return "200 OK", digest(environ)
    if path == "/":
        return "200 OK", "<!doctype html><title>lithify</title><p>This page is served from stone.\n"
    if path == "/health":
        return "200 OK", "well"
    if path == "/random":
        return "200 OK", os.urandom(min(number, 1 << 22)).hex()
    if path == "/lookup":
        return "200 OK", str(socket.getaddrinfo("localhost", 80)[0][4][0])
    if path == "/copied":
        return "200 OK", copied()
    if path == "/counted":
        return "200 OK", counted()
    if path == "/nice":
        return "200 OK", str(os.nice(1))
    if path == "/slow":
        time.sleep(20)
    if path == "/crash":
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(20)
    if path == "/fail":
        raise RuntimeError("as it was asked to")
    return "404 Not Found", ""


def app(environ, start_response):
    status, text = answer(environ)
    body = text.encode()
    start_response(status, [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
