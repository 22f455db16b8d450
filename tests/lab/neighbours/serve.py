"""Serve the neighbours until the container stops: DNS, pebble, the mail server, and 200 on port 8080."""

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
    authority = subprocess.Popen(["pebble", "-config", "/srv/pebble.json"])
    # Docker's own DNS is on a loopback address, which containers inside the machine cannot ask. Only the
    # neighbours have names here; all others are refused at once.
    names = ["--keep-in-foreground", "--user=root", "--no-resolv", "--server=/ferreteria.test/127.0.0.11"]
    dns = subprocess.Popen(["dnsmasq", *names])
    mail = smtp.serve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        ThreadingHTTPServer(("0.0.0.0", 8080), Internet).serve_forever()
    finally:
        mail.stop()
        authority.terminate()
        dns.terminate()


main()
