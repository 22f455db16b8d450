"""What a backup is once it is in the bucket: its manifest, the verdict on it, and how the ages of all are judged."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.manifest import Manifest

UNTIL_PROVEN = timedelta(hours=24)  # how much older than the newest the newest proven one may be: until the next proof


class Proof(BaseModel):
    """The verdict of a drill on one backup. It counts for the manifest that it names by SHA-256, and no other.

    `restore_seconds` is the measured time to restore (RTO), `data_age_seconds` the age of the data at the verdict
    (RPO), `invariants` how many rows violate each, and `differences` what is not as the manifest says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: Literal["proven", "bad"]
    at: datetime
    restore_seconds: float
    data_age_seconds: float
    manifest_sha256: str
    differences: list[str] = []
    invariants: dict[str, int] = {}
    tables: int = 0
    rows: int = 0

    @property
    def words(self) -> str:
        """The verdict for people."""
        if self.verdict == "bad":
            violated = [f"{name}: {rows} rows" for name, rows in self.invariants.items() if rows]
            return "; ".join(self.differences[:5] + violated[:5]) or "it does not restore"
        measured = f"restored in {self.restore_seconds:.0f} s, data {self.data_age_seconds / 3600:.1f} h old"
        same = "exactly as when it was made" if self.manifest_sha256 else "as the file says, which has no manifest"
        return f"{self.tables} tables, {self.rows:,} rows {same}; {measured}"


class Backup(BaseModel):
    """One backup. Without a manifest it cannot be used, and `problem` says why."""

    model_config = ConfigDict(frozen=True)

    name: str
    manifest: Manifest | None = None
    proof: Proof | None = None
    problem: str = ""

    @property
    def proven(self) -> bool:
        """Whether it has been restored and found exact."""
        return self.proof is not None and self.proof.verdict == "proven"


class Backups(BaseModel):
    """The backups of a site, newest first, seen at a moment. The newest may be as old as `rpo`."""

    items: list[Backup]
    at: datetime
    rpo: timedelta

    @property
    def usable(self) -> list[Backup]:
        """Those that can be used; what was saved before a restore is no backup to go on with."""
        return [backup for backup in self.items if backup.manifest and backup.manifest.kind != "safety"]

    @property
    def newest(self) -> Manifest | None:
        """The newest that can be used."""
        return next((backup.manifest for backup in self.usable), None)

    @property
    def newest_proven(self) -> Manifest | None:
        """The newest that has been restored and found exact."""
        return next((backup.manifest for backup in self.usable if backup.proven), None)

    @property
    def stale(self) -> str:
        """That the newest is older than promised, in words, or nothing."""
        if self.newest is None:
            return "there is no backup that can be used"
        return f"the newest backup is {self._age(self.newest)} old" if self._older(self.newest, self.rpo) else ""

    @property
    def unproven(self) -> str:
        """That proofs have stopped, in words, or nothing. The first backup gets as long as the next one takes."""
        if self.newest_proven is not None:
            late = self._older(self.newest_proven, self.rpo + UNTIL_PROVEN)
            return f"the newest proven backup is {self._age(self.newest_proven)} old" if late else ""
        waited = any(backup.manifest and self._older(backup.manifest, self.rpo) for backup in self.usable)
        return "no backup is proven" if waited else ""

    @property
    def problem(self) -> str:
        """All that is wrong with their ages, in words, or nothing."""
        return " and ".join(filter(None, (self.stale, self.unproven)))

    @property
    def cure(self) -> str:
        """What to do about it."""
        first = "Make one now: `guardia backup`, then prove it" if self.stale else "Prove the newest"
        return f"{first}: `guardia verify`."

    @property
    def ok(self) -> bool:
        """Whether the newest is as young as promised, and so is the newest that is proven, but for a day."""
        return not self.problem

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if self.newest is None:
            return "there is NO backup"
        ages = f"the newest {self._age(self.newest)} old"
        proven = (
            f"the newest proven one {self._age(self.newest_proven)} old" if self.newest_proven else "NONE is proven"
        )
        broken = sum(bool(backup.problem) for backup in self.items)
        return f"{len(self.items)} backups, {ages}, {proven}" + (f", {broken} that cannot be used" if broken else "")

    def _older(self, manifest: Manifest, limit: timedelta) -> bool:
        return self.at - manifest.snapshot_at > limit

    def _age(self, manifest: Manifest) -> str:
        return f"{(self.at - manifest.snapshot_at).total_seconds() / 3600:.1f} h"
