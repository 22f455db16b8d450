"""Guardia itself, served for a practice VPS as an operator would: a site file, `guardia up`, its REST API."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.lab.home import LabError
from tests.lab.machine import free_ports
from tests.lab.site import invariants
from tests.lab.vps import PracticeVps

if TYPE_CHECKING:
    from tests.lab.seaweed import Store

SITE = "tandil"
TIMEZONE = "America/Argentina/Buenos_Aires"


def env_prod(name: str) -> str:
    """A value of the practice site's env file, which its mail neighbour knows too."""
    lines = (Path(__file__).parent / "site" / "env.prod").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))


@dataclass(frozen=True)
class Guardia:
    """A running `guardia up`: its API, its folder (records, log) and the environment of its command line."""

    api: str
    folder: Path
    environment: Mapping[str, str]
    pid: int

    @property
    def ui(self) -> str:
        """Where the Prefect UI is."""
        return self.api.removesuffix("/api")

    def command(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a `guardia` command and return what it printed and its exit status."""
        argv = [str(Path(sys.executable).parent / "guardia"), *words]
        return subprocess.run(
            argv, env=dict(self.environment), cwd=self.folder, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip

    def start(self, playbook: str = "site-down", **parameters: Any) -> str:
        """Start a playbook over REST, as the README's curl does; returns the run's id."""
        deployment = self.get(f"/deployments/name/{playbook}/guardia")["id"]
        body = {"parameters": {"site": SITE, **parameters}}
        return str(self.post(f"/deployments/{deployment}/create_flow_run", body)["id"])

    def retry(self, run: str, *, frees: str = "") -> None:
        """Retry a run that has ended as the UI does; `frees` is a limit that a killed process still holds."""
        if frees:
            self.post("/v2/concurrency_limits/decrement", {"names": [frees], "slots": 1})
        body = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
        if (answer := self.post(f"/flow_runs/{run}/set_state", body))["status"] != "ACCEPT":
            raise LabError(f"the run {run} cannot be retried: {answer}")

    def wait(
        self, run: str, until: Callable[[dict[str, Any]], bool] | None = None, seconds: float = 240
    ) -> dict[str, Any]:
        """Wait until the run's state satisfies `until` (default: it is final); returns the state."""
        until = until or (lambda state: state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
        deadline = time.monotonic() + seconds
        state: dict[str, Any] = {}
        while time.monotonic() < deadline:
            state = self.get(f"/flow_runs/{run}").get("state") or {"type": "NONE", "name": "none"}
            if until(state):
                return state
            time.sleep(0.25)
        raise LabError(
            f"the run {run} is still {state.get('name')} after {seconds:.0f} s; its log is {self.folder}/up.log"
        )

    def wait_for_gate(self, run: str, seconds: float = 240) -> dict[str, Any]:
        """Wait until the run asks for an approval (or ends); returns the state."""
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED", "PAUSED"}
        return self.wait(run, lambda state: state["type"] in final, seconds)

    def timeline(self, run: str) -> list[dict[str, Any]]:
        """What the run recorded so far, oldest first."""
        since = {"since": "2000-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z"}
        query = {
            "filter": {"resource": {"id": [f"guardia.incident.{run}"]}, "occurred": since, "order": "ASC"},
            "limit": 50,
        }
        page = self.post("/events/filter", query)
        entries = [event["payload"] for event in page["events"]]
        while page.get("next_page"):
            page = httpx.get(page["next_page"], timeout=30).raise_for_status().json()
            entries += [event["payload"] for event in page["events"]]
        return entries

    def acts(self, run: str) -> list[str]:
        """The acts that the run did, in order."""
        return [entry["what"] for entry in self.timeline(run) if entry["kind"] == "act"]

    def records(self) -> list[Path]:
        """The incident records, oldest first."""
        folder = Path(self.environment["GUARDIA_INCIDENTS"])
        return sorted(folder.glob("*.md"), key=lambda path: path.stat().st_mtime_ns)

    def log(self) -> str:
        """What `guardia up` printed."""
        return (self.folder / "up.log").read_text()

    def get(self, path: str) -> Any:
        """GET from the API."""
        return self._request("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """POST to the API."""
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        """Try again on 503, which Prefect's SQLite server answers now and then when several write at once."""
        for _ in range(10):
            response = httpx.request(method, self.api + path, json=body, timeout=30)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(0.5)
        return response.raise_for_status().json() if response.content else None


def site_file(vps: PracticeVps, folder: Path, *, store: "Store | None" = None, **settings: str) -> Path:
    """Write the site file of a practice VPS; `settings` are lines to put into it, as key = TOML text.

    A key goes to the top, or with the name of a section before it (`gates_restart`, `backups_copies`) into that.
    With a store there are a database, backups, the site's own scripts and drills, else none of them.
    """
    ca = folder / "ca.pem"
    ca.write_text(vps.ca_file.read_text())
    sections = _sections(folder, store) | {"gates": {}}
    top = {"healthy_in_a_row": "3", "recovery_timeout": "45", "reboot_timeout": "180"}
    top |= {"timezone": f'"{TIMEZONE}"'} if store else {}
    for key, value in settings.items():
        section = next((name for name in sections if key.startswith(f"{name}_")), None)
        (sections[section] if section else top)[key.removeprefix(f"{section}_")] = value
    path = folder / "site.toml"
    path.write_text(
        f'''name = "{SITE}"
url = "{vps.site_url}"
address = "127.0.0.1"                                # what DNS would say
ca_certificates = {{ file = "{ca}" }}
controls = ["http://127.0.0.1:{vps.control_port}/"]  # what is up when the internet is
folder = "/root/ferreteria"
{_lines(top)}

[host]
address = "127.0.0.1"
port = {vps.ssh_port}
connect_timeout = 4
private_key = {{ file = "{vps.key_file}" }}
host_key = "{vps.host_key}"

[on_call]
primary = {{ name = "Ana", channels = ["ana@ferreteria.test"] }}
secondary = {{ name = "Bruno", channels = ["bruno@ferreteria.test"] }}
stakeholders = [{{ name = "Carla", channels = ["carla@ferreteria.test"] }}]

[mailbox]
host = "127.0.0.1"
port = {vps.smtp_port}
user = "{env_prod("SMTP_USER")}"
password = {{ env = "GUARDIA_SMTP_PASSWORD" }}
sender = "guardia@ferreteria.test"
verify_certificate = false                           # the practice mail server signs its own

{chr(10).join(f"[{name}]{chr(10)}{_lines(lines)}{chr(10)}" for name, lines in sections.items())}''',
        encoding="utf-8",
    )
    return path


def _lines(settings: Mapping[str, str]) -> str:
    return "\n".join(f"{key} = {value}" for key, value in settings.items())


def _sections(folder: Path, store: "Store | None") -> dict[str, dict[str, str]]:
    """What backups need, as on the machine; each folder has a prefix of its own in the bucket."""
    if store is None:
        return {}
    cron = (Path(__file__).parent / "site" / "cron").read_text().splitlines()
    return {
        "database": {
            "name": f'"{env_prod("POSTGRES_DB")}"',
            "user": f'"{env_prod("POSTGRES_USER")}"',
            "password": '{ env = "GUARDIA_DB_PASSWORD" }',
            "invariants": f'{{ file = "{invariants.FILE}" }}',
        },
        "backups": {
            "endpoint": f'"{store.endpoint}"',
            "bucket": f'"{store.bucket}"',
            "prefix": f'"{folder.name}"',
            "addressing": '"path"',
            "part_size": "5",
            "access_key_id": f'"{store.key}"',
            "secret_access_key": '{ env = "GUARDIA_S3_SECRET" }',
        },
        "own_scripts": {
            "log": '"/var/log/ferreteria_backup.log"',
            "cron_file": '"/etc/cron.d/ferreteria"',
            "cron_line": json.dumps(next(line for line in cron if "backup_db.sh" in line)),
        },
        "drill": {"memory": "256"},
    }


@contextmanager
def served(
    vps: PracticeVps,
    folder: Path,
    port: int | None = None,
    records: Path | None = None,
    *,
    store: "Store | None" = None,
    **settings: str,
) -> Iterator[Guardia]:
    """Run `guardia up` for a practice VPS until the block ends; all it makes is in `folder`, the records in `records`.

    `store` and `settings` are those of `site_file`. Raises LabError with its log if it does not get ready.
    """
    port = port or free_ports(("api",))["api"]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "GUARDIA_"))},
        "GUARDIA_HOME": str(folder / "home"),
        "GUARDIA_INCIDENTS": str(records or folder / "incidents"),
        "GUARDIA_SMTP_PASSWORD": env_prod("SMTP_PASSWORD"),
        "GUARDIA_DB_PASSWORD": env_prod("POSTGRES_PASSWORD"),
        **({"GUARDIA_S3_SECRET": store.secret} if store else {}),
        "COLUMNS": "200",
    }
    site = site_file(vps, folder, store=store, **settings)
    argv = [str(Path(sys.executable).parent / "guardia"), "up", "--site-file", str(site), "--port", str(port)]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(argv, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_ready(process, folder / "up.log")
        yield Guardia(f"http://127.0.0.1:{port}/api", folder, environment, process.pid)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End `guardia up` as Ctrl-C does."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: "subprocess.Popen[bytes]", log: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        said = log.read_text()
        if "Ready." in said:
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise LabError(f"`guardia up` did not get ready:\n{log.read_text()}")
