"""Who is told of a site whose blocks cannot be loaded, by an edit in the UI or a field that an upgrade made stricter.

Nothing can be done for such a site: its jobs end as bad input, and its schedules are left out.
"""

from collections.abc import Iterator
from typing import TypeVar, cast

from prefect.blocks.core import Block

from blocks import site_file
from blocks.errors import ConfigError
from blocks.mailbox import Mailbox
from blocks.on_call import OnCall
from tasks.notify import Contacts, Sender

B = TypeVar("B", bound=Block)


def words(name: str, error: ConfigError) -> str:
    """What that means, and the cure."""
    return (
        f"{error}\n\nUntil then there are no backups, no proofs and no playbooks for {name}. "
        "See that it can be loaded again with `guardia doctor`.\n"
    )


def senders(name: str) -> Iterator[Sender]:
    """The on-call of the site as far as their own blocks can be loaded, then those of the other sites."""
    on_call = _part(OnCall, name)
    if on_call is not None:
        yield Contacts(on_call, _part(Mailbox, name))
    for other in site_file.names():
        if other != name:
            try:
                yield site_file.load(other)
            except ConfigError:
                continue  # an alarm of its own tells of it


def _part(kind: type[B], name: str) -> B | None:
    """A block that the site was registered with; None if it is not there, or is what cannot be loaded."""
    try:
        return cast(B, kind.load(name))
    except (ValueError, RuntimeError):
        return None
