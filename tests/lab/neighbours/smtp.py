"""A mail server with STARTTLS and AUTH that keeps what it accepts in the Maildir /mail."""

import os
import ssl
from collections.abc import Callable
from mailbox import Maildir

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Deliver:
    """Keep each message in the Maildir, with its envelope in two header lines."""

    def __init__(self) -> None:
        self.box = Maildir("/mail")

    async def handle_DATA(self, _: SMTP, session: Session, envelope: Envelope) -> str:
        text = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
        head = f"X-Mail-From: {envelope.mail_from}\r\nX-Rcpt-To: {', '.join(envelope.rcpt_tos)}\r\n"
        key = self.box.add(head.encode() + text)
        return f"250 kept as {key}"


def serve() -> Controller:
    """Listen on port 587; log in with SMTP_USER and SMTP_PASSWORD after STARTTLS, or be refused."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain("/srv/cert.pem", "/srv/key.pem")
    controller = Controller(
        Deliver(),
        hostname="0.0.0.0",
        port=587,
        tls_context=tls,
        require_starttls=True,
        auth_required=True,
        authenticator=_authenticator(os.environ["SMTP_USER"], os.environ["SMTP_PASSWORD"]),
    )
    controller.start()
    return controller


def _authenticator(user: str, password: str) -> Callable[..., AuthResult]:
    def check(server: object, session: object, envelope: object, mechanism: str, given: object) -> AuthResult:
        good = isinstance(given, LoginPassword) and given == LoginPassword(user.encode(), password.encode())
        return AuthResult(success=good, handled=False)

    return check
