"""Where the lab keeps its files, and how it speaks: one folder, one error, one line at a time."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class LabError(Exception):
    """The lab cannot do what was asked; the message says what failed and what cures it."""


def home() -> Path:
    """The lab's folder: $GUARDIA_LAB_HOME, else ~/.cache/guardia-lab. Created when it is missing."""
    folder = Path(os.environ.get("GUARDIA_LAB_HOME") or "~/.cache/guardia-lab").expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def say(line: str) -> None:
    """Show one line of progress on standard error, so that standard output stays for results."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def only_one(what: str) -> Iterator[None]:
    """Hold the lab's lock called `what`, so that two processes never build the same thing at once."""
    with (home() / f"{what}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that is busy with the same ({what}) ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(
    argv: Sequence[str],
    *,
    failing: str,
    timeout: float = 600,
    env: dict[str, str] | None = None,
    input: str | None = None,
) -> str:
    """Run `argv` and return its standard output; LabError "`failing`: last lines it printed" if it fails."""
    try:
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
        )
    except FileNotFoundError as error:
        raise LabError(f"{failing}: `{argv[0]}` is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{failing}: `{' '.join(argv)[:120]}` took longer than {timeout:.0f} s") from error
    if done.returncode:
        said = "\n".join((done.stderr + done.stdout).strip().splitlines()[-12:])
        raise LabError(f"{failing}: `{' '.join(argv)[:120]}` exited {done.returncode}:\n{said}")
    return done.stdout
