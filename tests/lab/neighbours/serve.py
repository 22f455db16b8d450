"""Serve the neighbours until the container stops: pebble, the mail server, and 200 on port 8080."""

import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import smtp  # type: ignore[import-not-found]  # beside this file in the image


class Internet(BaseHTTPRequestHandler):
    """The rest of the internet: it answers, so a prober that sees it down has itself to blame."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing: probes come every second."""


def main() -> None:
    pebble = subprocess.Popen(["pebble", "-config", "/srv/pebble.json"])
    mail = smtp.serve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        ThreadingHTTPServer(("0.0.0.0", 8080), Internet).serve_forever()
    finally:
        mail.stop()
        pebble.terminate()


main()
