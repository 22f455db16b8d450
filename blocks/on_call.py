"""Who is told and who approves. Serves the guide's "Contact Information" and its severity table."""

import re
from typing import Annotated, Literal

from prefect.blocks.core import Block
from pydantic import AfterValidator, BaseModel, Field

Severity = Literal["P1", "P2", "P3", "P4"]

_EMAIL = re.compile(r"[^@\s,<>\"']+@[^@\s,<>\"']+")
_SLUG = re.compile(r"[a-z0-9-]+/[a-z0-9-]+")


def _channel(value: str) -> str:
    if not (_EMAIL.fullmatch(value) or _SLUG.fullmatch(value)):
        raise ValueError(
            f"{value!r} is neither an e-mail address nor a notification block 'type/name'. "
            "Write e.g. 'ana@tandil.site' (sent through the site's mailbox) or 'slack-webhook/on-call'"
        )
    return value


class Person(BaseModel):
    """Somebody to tell, and how to reach them."""

    name: str = Field(
        min_length=1,
        max_length=80,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="The name that messages and records show, in one line.",
    )
    channels: list[Annotated[str, AfterValidator(_channel)]] = Field(
        min_length=1,
        description='E-mail addresses and Prefect notification blocks, e.g. ["ana@tandil.site", "slack-webhook/ana"]; '
        "pager-duty-webhook/NAME, twilio-sms/NAME, discord-webhook/NAME and all others that Prefect has work too.",
    )


class OnCall(Block):
    """Primary and secondary on-call, and the stakeholders of a critical incident."""

    _block_type_name = "Guardia On-Call"
    _block_type_slug = "guardia-on-call"
    _description = "Who is told and who approves: primary, secondary, stakeholders."

    primary: Person = Field(description="Told of every incident and asked for every approval first.")
    secondary: Person | None = Field(default=None, description="Asked when the primary does not answer.")
    stakeholders: list[Person] = Field(default=[], description="Told of P1 incidents besides the on-call.")

    def told(self, severity: Severity) -> list[Person]:
        """Who is told of an incident, by the guide's severity table: all for P1, the on-call for P2 and P3."""
        if severity == "P4":
            return []
        if severity != "P1":
            return [self.primary]
        return [self.primary, *([self.secondary] if self.secondary else []), *self.stakeholders]
