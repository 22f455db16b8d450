"""Run commands on a host over its SSH connection: to their end, fed from here, or read while they run.

Serves the guide's "SSH to VPS". Nothing here retries a command that may have begun: the steps know what is safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from blocks.errors import CommandFailed, CommandTimedOut, GuardiaError, HostUnreachable
from blocks.host import Host
from tasks import ssh_connection, timeline
from tasks.command import Runnable
from tasks.masking import mask
from tasks.ssh_connection import close

__all__ = ["Output", "Reader", "close", "feed", "reading", "run"]

OUTPUT_LIMIT = 1 << 20  # bytes kept of each stream; the rest is read and dropped, so that nothing blocks
SHOWN = 300  # characters of each end of what a failed command said
_TIMED_OUT = {124, 137, -1}  # what timeout(1) exits with after TERM and after KILL, of which it may die itself
_GRACE = 15  # seconds that the host gets to end a command by itself before the connection is given up
_PIECE = 1 << 15  # bytes sent at a time: paramiko copies all that is left for each packet


@dataclass(frozen=True)
class Output:
    """What a command left: exit status (-1: killed by a signal), both streams as text, seconds it took."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float


def run(host: Host, command: Runnable, *, quiet: bool = False) -> Output:
    """Run one command on the host and record it on the timeline (`quiet`: leave it off, for polling).

    Raises HostUnreachable, HostRefused, CommandTimedOut, and CommandFailed for any exit status but 0.
    """
    return feed(host, command, (), quiet=quiet)


def feed(host: Host, command: Runnable, chunks: Iterable[bytes], *, quiet: bool = False) -> Output:
    """Run a command that reads these chunks as its standard input. Raises as `run` does, and what `chunks` raise.

    It fails too if it ends well without having read everything. If `chunks` raise, the command still sees a plain
    end of its input: what it wrote by then counts for nothing.
    """
    with _recorded(host, command, quiet) as record:
        output, read_all = _fed(host, command, chunks)
        record.outcome, record.ok = f"exit {output.exit_code}", output.exit_code == 0
    _check(host, command, output)
    if not read_all:
        raise CommandFailed(f"`{command.line}` on {host.address} ended before it had read all of its input.")
    return output


@contextmanager
def reading(host: Host, command: Runnable, *, quiet: bool = False) -> Iterator[Reader]:
    """Start a command whose standard output is read while it runs: `with reading(…) as reader: reader.read(n)`.

    Leaving the block before the end of the stream closes it: the command dies when it next writes, or in time.
    """
    with _recorded(host, command, quiet) as record, _started(host, command) as running:
        running.end_input()
        reader = Reader(running)
        yield reader
        record.outcome = f"{'exit 0' if reader.ended else 'left'} after {reader.received} bytes"


class Reader:
    """What a command writes to its standard output. `received` counts its bytes."""

    def __init__(self, running: _Running) -> None:
        self._running, self.received, self.ended = running, 0, False

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; fewer, or none, only once the command has ended with exit status 0 in all its stages.

        Raises HostUnreachable, CommandTimedOut, CommandFailed: an end of the stream always means success.
        """
        parts, missing = [], size
        while missing and not self.ended:
            part = self._running.receive(missing)
            parts.append(part)
            missing -= len(part)
            if not part:
                self._running.check()
                self.ended = True
        self.received += size - missing
        return b"".join(parts)


class _Running:
    """A command that runs. Its standard error is drained all the while: a full window on it would block the rest."""

    def __init__(self, host: Host, command: Runnable) -> None:
        self._host, self._command, self._started = host, command, time.monotonic()
        self._channel = ssh_connection.session(host)
        self._transport = self._channel.get_transport()
        with self._connected():
            self._channel.settimeout(command.timeout + _GRACE)
            self._channel.exec_command(command.bounded)
        self._stderr = _Drain(self._receive_stderr)

    def close(self) -> None:
        self._channel.close()

    def receive(self, size: int) -> bytes:
        with self._connected():
            return self._channel.recv(size)

    def _receive_stderr(self, size: int) -> bytes:
        with self._connected():
            return self._channel.recv_stderr(size)

    def send(self, chunk: bytes) -> bool:
        """Whether the command, which may have ended, still reads."""
        with self._connected():
            try:
                for start in range(0, len(chunk), _PIECE):
                    self._channel.sendall(chunk[start : start + _PIECE])
            except OSError:
                if not self._channel.closed:
                    raise
                return False
        return True

    def end_input(self) -> None:
        with self._connected():
            self._channel.shutdown_write()

    def output(self, stdout: str = "") -> Output:
        """Wait for the exit status, which comes after the end of both streams."""
        with self._connected():
            stderr = self._stderr.text()
            if not self._channel.status_event.wait(_GRACE):
                raise EOFError("no exit status")
            code = self._channel.recv_exit_status()
            # else the command died of a signal, for which there is no status
            if code == -1 and not ssh_connection.survives(self._transport):
                raise EOFError("connection ended")
        return Output(code, stdout, stderr, time.monotonic() - self._started)

    def check(self) -> None:
        """Raise unless the command ended with exit status 0."""
        _check(self._host, self._command, self.output())

    @contextmanager
    def _connected(self) -> Iterator[None]:
        from paramiko import SSHException

        try:
            yield
        except (SSHException, EOFError, OSError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> HostUnreachable:
        ssh_connection.drop(self._host, self._transport)
        return HostUnreachable(
            f"The connection to {self._host.address} was lost during `{self._command.line}` "
            f"({str(error) or type(error).__name__}).",
            "Whether it ran to its end is not known; the next look tells.",
        )


@contextmanager
def _started(host: Host, command: Runnable) -> Iterator[_Running]:
    running = _Running(host, command)
    try:
        yield running
    finally:
        running.close()


def _fed(host: Host, command: Runnable, chunks: Iterable[bytes]) -> tuple[Output, bool]:
    """Run to the end; also whether the command took all that it was sent."""
    with _started(host, command) as running:
        stdout = _Drain(running.receive)
        read_all = all(running.send(chunk) for chunk in chunks)
        if read_all:
            running.end_input()
        return running.output(stdout.text()), read_all


class _Drain(threading.Thread):
    """Reads a stream to its end beside others, and keeps the beginning."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        super().__init__(daemon=True)
        self._receive, self._kept = receive, bytearray()
        self._error: GuardiaError | None = None
        self.start()

    def run(self) -> None:
        try:
            while chunk := self._receive(65536):
                self._kept += chunk[: OUTPUT_LIMIT - len(self._kept)]
        except GuardiaError as error:
            self._error = error

    def text(self) -> str:
        """Wait for the end and give the text, or raise what ended the reading."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._kept.decode("utf-8", "replace")


@dataclass
class _Record:
    outcome: str = ""
    ok: bool = True


@contextmanager
def _recorded(host: Host, command: Runnable, quiet: bool) -> Iterator[_Record]:
    current = timeline.current()
    if command.changes and current is not None and current.planning:
        raise AssertionError(f"plan mode would have run {command.line}")
    started, record = time.monotonic(), _Record()
    try:
        yield record
    except BaseException as error:
        record.outcome, record.ok = str(error) if isinstance(error, GuardiaError) else type(error).__name__, False
        raise
    finally:
        if not quiet:
            timeline.record(
                "command", command.line, outcome=record.outcome, seconds=time.monotonic() - started,
                changes=command.changes, ok=record.ok, detail={"host": host.address},
            )  # fmt: skip


def _both_ends(text: str) -> str:
    """The error stands first or last: pg_restore adds the whole statement that failed."""
    return text if len(text) <= 2 * SHOWN else f"{text[:SHOWN]} … {text[-SHOWN:]}"


def _check(host: Host, command: Runnable, output: Output) -> None:
    if output.exit_code == 0:
        return
    said = _both_ends(mask(output.stderr.strip() or output.stdout.strip())) or "nothing"  # a cut name would unmask
    if output.exit_code in _TIMED_OUT and output.seconds >= command.timeout:
        raise CommandTimedOut(
            f"`{command.line}` on {host.address} did not end within {command.timeout} s and was killed.",
            "What it talks to (often dockerd or a full disk) hangs.",
        )
    ended = f"ended with exit status {output.exit_code}" if output.exit_code >= 0 else "was killed"
    raise CommandFailed(
        f"`{command.line}` on {host.address} {ended} and said: {said}",
        "Run it by hand to see more.",
    )
