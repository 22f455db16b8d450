"""A site as its users see it: a page and a health check, in this process, that answer what the test says."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

HEALTHY = '{"status": "healthy", "database": "connected"}'


class WebServer:
    """Answers the page and the health check with these statuses; `requests` are what was asked, with its Host.

    While it is `sick_until` a file is there, the health check answers 502 whatever it should.
    """

    def __init__(self) -> None:
        self.page, self.health, self.body = 200, 200, HEALTHY
        self.sick_until: Path | None = None
        self.requests: list[tuple[str, str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(site.page, "")

            def do_GET(self) -> None:
                sick = site.sick_until is not None and not site.sick_until.exists()
                self._answer(502 if sick else site.health, site.body)

            def _answer(self, status: int, body: str) -> None:
                site.requests.append((self.command, self.path, self.headers["Host"]))
                if not status:  # closed without an answer
                    self.close_connection = True
                    return
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
