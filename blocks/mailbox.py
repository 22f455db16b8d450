"""The SMTP account that Guardia's messages are sent from."""

from typing import Literal
from urllib.parse import quote, urlencode

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr

_SCHEMES = {"starttls": "mailtos", "ssl": "mailtos", "none": "mailto"}


class Mailbox(Block):
    """An SMTP account; messages to e-mail addresses of the on-call go through it."""

    model_config = ConfigDict(hide_input_in_errors=True)
    _block_type_name = "Guardia Mailbox"
    _block_type_slug = "guardia-mailbox"
    _description = "The SMTP account that messages to e-mail addresses are sent from."

    host: str = Field(pattern=r"^[A-Za-z0-9.:_-]+$", description="SMTP server.")
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "ssl", "none"] = Field(default="starttls", description="How it is encrypted.")
    user: str = Field(default="", description="SMTP user; empty for a server without accounts.")
    password: SecretStr = Field(default=SecretStr(""), description="SMTP password.")
    sender: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", description="The From address.")
    verify_certificate: bool = Field(default=True, description="Refuse a server with an unknown certificate.")

    def apprise_url(self, recipient: str) -> SecretStr:
        """The address of one recipient as Apprise, which sends the message, writes it."""
        account = f"{quote(self.user, safe='')}:{quote(self.password.get_secret_value(), safe='')}@"
        query = urlencode(
            {
                "smtp": self.host,
                "from": self.sender,
                "name": "Guardia",
                "to": recipient,
                "mode": {"none": "insecure"}.get(self.security, self.security),
                "format": "text",
                "verify": "yes" if self.verify_certificate else "no",
            },
            quote_via=quote,
        )
        prefix = account if self.user else ""
        return SecretStr(f"{_SCHEMES[self.security]}://{prefix}{self.host}:{self.port}?{query}")

    def log_in(self) -> str:
        """Connect and log in as a message would, and leave; nothing is sent.

        Raises OSError (of which SMTPException is one) if that fails.
        """
        import smtplib
        import ssl

        context = ssl.create_default_context()
        if not self.verify_certificate:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.security == "ssl":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=10, context=context)
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=10)
        with server:
            if self.security == "starttls":
                server.starttls(context=context)
            if self.user:
                server.login(self.user, self.password.get_secret_value())
            server.noop()
        return f"{self.host}:{self.port} accepts the account (nothing was sent)"
