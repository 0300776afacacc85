"""Counts visits: each is a row in PostgreSQL and a number in Redis."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis

HOST = socket.gethostname()
COUNTER = redis.Redis("redis")
LOCAL = threading.local()


def database():
    if not hasattr(LOCAL, "connection"):
        LOCAL.connection = psycopg2.connect(host="db", user="postgres", dbname="postgres")
        LOCAL.connection.autocommit = True
    return LOCAL.connection.cursor()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = "ready\n"
        if self.path == "/":
            database().execute("insert into visits (host) values (%s)", (HOST,))
            text = f"{HOST} {COUNTER.incr('visits')}\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("", 8000), Handler).serve_forever()
