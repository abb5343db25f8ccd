"""A WSGI application that asks itself: started by uWSGI with threads, at the address of UWSGI_ADDRESS."""

import os
import threading
import urllib.request

ADDRESS = os.environ["UWSGI_ADDRESS"]


def work():
    total = 0
    for i in range(2_000_000):
        total += i
    return total


def application(environ, start_response):
    body = str(work()).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def ask():
    while True:
        try:
            urllib.request.urlopen(f"http://{ADDRESS}/", timeout=10).read()
        except OSError:
            # Not listening yet.
            threading.Event().wait(0.1)


threading.Thread(target=ask, daemon=True).start()
