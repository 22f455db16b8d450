"""Everything that can go wrong, as one tree. Each error says what failed, where, and what to do.

GuardiaError
  ConfigError          the site file, a block or a parameter is wrong; nothing was tried
  HostError            the machine, as reached over SSH
    HostUnreachable      no answer, or the connection was lost; trying again can help
    HostLost             it did not come back from a reboot
    HostRefused          it answered and said no: key refused, host key unknown or changed
  CommandError         a command on the host
    CommandFailed        it ended with an exit status other than 0
    CommandTimedOut      it did not end in time and was killed on the host
  DatabaseError        PostgreSQL, as reached through SSH
    DatabaseUnreachable  no connection, or it was lost on the way; trying again can help
    DatabaseRefused      it answered and said no: password, rights, row level security, a statement that fails
  StoreError           the bucket that backups are kept in
    StoreUnreachable     no answer, a slow or a broken one; trying again can help
    StoreRefused         it answered and said no: credentials, rights, no such bucket, a clock that is wrong
  BadBackup            an archive or manifest is not what was backed up; it must never be restored
  DrillBroken          a proof could not be carried out; it says nothing of the backup, and trying again can help
  NoSpace              a disk has less free than is needed; nothing was begun
  ProberOffline        this machine's own network is down: nothing can be said about the site
  Refused              a person refused an act, or nobody answered in time
  Busy                 another playbook is acting on the site
  IncidentOpen         an incident of this playbook is already open on the site
"""


class GuardiaError(Exception):
    """What failed and where (`str(error)`), what the operator can do (`cure`).

    `permanent` says that trying the same again cannot help, so nothing is retried.
    """

    permanent = True

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(f"{what} {cure}".strip())
        self.what = what
        self.cure = cure

    def __reduce__(self) -> tuple[type["GuardiaError"], tuple[str, str]]:
        """Survive pickling, which Prefect does with what a task raises."""
        return type(self), (self.what, self.cure)


class ConfigError(GuardiaError):
    """The site file, a block or a parameter is wrong; nothing was tried."""


class HostError(GuardiaError):
    """The machine, as reached over SSH."""


class HostUnreachable(HostError):
    """No answer from the machine, or the connection was lost on the way."""

    permanent = False


class HostLost(HostError):
    """The machine did not come back from a reboot; only its console can help."""


class HostRefused(HostError):
    """The machine answered and said no: key refused, host key unknown or changed."""


class CommandError(GuardiaError):
    """A command on the host."""


class CommandFailed(CommandError):
    """A command ended with an exit status other than 0."""


class CommandTimedOut(CommandError):
    """A command did not end in time and was killed on the host."""


class DatabaseError(GuardiaError):
    """PostgreSQL, as reached through SSH."""


class DatabaseUnreachable(DatabaseError):
    """No connection to PostgreSQL, or it was lost on the way."""

    permanent = False


class DatabaseRefused(DatabaseError):
    """PostgreSQL answered and said no: password, rights, row level security, a statement that fails."""


class StoreError(GuardiaError):
    """The bucket that backups are kept in."""


class StoreUnreachable(StoreError):
    """No answer from the bucket, a slow or a broken one."""

    permanent = False


class StoreRefused(StoreError):
    """The bucket answered and said no: credentials, rights, no such bucket, a clock that is wrong."""


class BadBackup(GuardiaError):
    """An archive or manifest is not what was backed up. Never retried, never restored."""


class DrillBroken(GuardiaError):
    """A proof could not be carried out; it says nothing of the backup."""

    permanent = False


class NoSpace(GuardiaError):
    """A disk has less free than is needed; nothing was begun."""


class ProberOffline(GuardiaError):
    """This machine's own network is down: nothing can be said about the site."""


class Refused(GuardiaError):
    """A person refused an act, or nobody answered in time."""


class Busy(GuardiaError):
    """Another playbook is acting on the site."""


class IncidentOpen(GuardiaError):
    """An incident of this playbook is already open on the site."""
