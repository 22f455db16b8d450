"""Tell people, through the channels that Prefect's notification blocks and Apprise know."""

import logging
from dataclasses import dataclass
from typing import Any, Protocol

from prefect.blocks.notifications import AppriseNotificationBlock

from blocks.mailbox import Mailbox
from blocks.on_call import OnCall, Person
from tasks import timeline
from tasks.masking import mask

log = logging.getLogger("guardia.notify")


class Sender(Protocol):
    """Whose people are told, and through what: a site, or its contacts."""

    on_call: OnCall
    mailbox: Mailbox | None


@dataclass
class Contacts:
    """What is left of a site that cannot be loaded: its people, and a mailbox if there is one."""

    on_call: OnCall
    mailbox: Mailbox | None


def tell(sender: Sender, people: list[Person], subject: str, body: str, template: str) -> list[str]:
    """Send a message over every channel of everybody, and record each on the timeline.

    A channel that fails is recorded and does not stop the others: a dead mail server must not keep a site down.
    Returns why each that failed did.
    """
    problems = []
    for person in people:
        for channel in person.channels:
            problem = deliver(sender, channel, subject, body)
            note(person.name, channel, subject, problem=problem, body=body, template=template)
            problems += [problem] if problem else []
    return problems


def alarm(sender: Sender, subject: str, body: str) -> bool:
    """Tell the primary on-call, or the secondary if no channel reaches them; whether somebody was reached."""
    primary, secondary = sender.on_call.primary, sender.on_call.secondary
    if len(tell(sender, [primary], subject, body, "alarm")) < len(primary.channels):
        return True
    if secondary is not None:
        instead = f"{primary.name} could not be reached: no channel of theirs works.\n\n{body}"
        if len(tell(sender, [secondary], subject, instead, "alarm")) < len(secondary.channels):
            return True
    log.error(
        "No on-call could be told; check their channels with `guardia doctor`. It was: %s\n%s", subject, mask(body)
    )
    return False


def note(name: str, channel: str, subject: str, *, problem: str, body: str, template: str) -> None:
    """Record on the timeline that somebody was written to, or why that failed. Outside a run the log has failures."""
    if problem and timeline.current() is None:
        log.error("%s (%s): %s %s", name, channel, subject, mask(problem))
    timeline.record(
        "message", f"{name} ({channel})", outcome=f"{subject} {problem}".strip(), ok=not problem,
        text="" if problem else body, detail={"template": template},
    )  # fmt: skip


def deliver(sender: Sender, channel: str, subject: str, body: str) -> str:
    """Send over one channel; returns why it could not be sent, or nothing."""
    try:
        block = notifier(sender, channel)
        with block.raise_on_failure():
            block.notify(body=body, subject=subject)
    except Exception as error:  # noqa: BLE001 - each channel's library has errors of its own
        said = str(error) or str(getattr(error, "log", ""))  # Prefect keeps Apprise's words beside the message
        return f"was not sent: {type(error).__name__}: {' '.join(said.split())}"
    return ""


def notifier(sender: Sender, channel: str) -> Any:
    """The notification block of a channel: `type/name`, or e-mail through the site's mailbox.

    Raises ValueError, naming the channel, if there is no such block or no mailbox.
    """
    if "@" not in channel:
        import prefect.blocks.notifications  # noqa: F401 - registers Prefect's own kinds
        from prefect.blocks.core import Block

        return Block.load(channel)
    if sender.mailbox is None:
        raise ValueError(f"{channel} is an e-mail address, but the site has no [mailbox]")
    return _Email(url=sender.mailbox.apprise_url(channel))


class _Email(AppriseNotificationBlock):
    """E-mail, sent by Apprise like all other notifications of Prefect; made on the fly, never registered."""

    _block_type_name = "Guardia E-Mail"
    _block_type_slug = "guardia-e-mail"
