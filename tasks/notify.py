"""Tell people, through the channels that Prefect's notification blocks and Apprise know."""

from typing import Any

from prefect.blocks.notifications import AppriseNotificationBlock

from blocks.on_call import Person
from blocks.site import Site
from tasks import timeline


def tell(site: Site, people: list[Person], subject: str, body: str, template: str) -> None:
    """Send a message over every channel of everybody, and record each on the timeline.

    A channel that fails is recorded and does not stop the others: a dead mail server must not keep a site down.
    """
    for person in people:
        for channel in person.channels:
            problem = deliver(site, channel, subject, body)
            note(person.name, channel, subject, problem=problem, body=body, template=template)


def note(name: str, channel: str, subject: str, *, problem: str, body: str, template: str) -> None:
    """Record on the timeline that somebody was written to, or why that failed."""
    timeline.record(
        "message", f"{name} ({channel})", outcome=f"{subject} {problem}".strip(), ok=not problem,
        text="" if problem else body, detail={"template": template},
    )  # fmt: skip


def deliver(site: Site, channel: str, subject: str, body: str) -> str:
    """Send over one channel; returns why it could not be sent, or nothing."""
    try:
        block = notifier(site, channel)
        with block.raise_on_failure():
            block.notify(body=body, subject=subject)
    except Exception as error:  # noqa: BLE001 - each channel's library has errors of its own
        said = str(error) or str(getattr(error, "log", ""))  # Prefect keeps Apprise's words beside the message
        return f"was not sent: {type(error).__name__}: {' '.join(said.split())}"
    return ""


def notifier(site: Site, channel: str) -> Any:
    """The notification block of a channel: `type/name`, or e-mail through the site's mailbox.

    Raises ValueError, naming the channel, if there is no such block or no mailbox.
    """
    if "@" not in channel:
        import prefect.blocks.notifications  # noqa: F401 - registers Prefect's own kinds
        from prefect.blocks.core import Block

        return Block.load(channel)
    if site.mailbox is None:
        raise ValueError(f"{channel} is an e-mail address, but the site has no [mailbox]")
    return _Email(url=site.mailbox.apprise_url(channel))


class _Email(AppriseNotificationBlock):
    """E-mail, sent by Apprise like all other notifications of Prefect; made on the fly, never registered."""

    _block_type_name = "Guardia E-Mail"
    _block_type_slug = "guardia-e-mail"
