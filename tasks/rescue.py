"""A rescue: what of a backup would be put back into the live database, and what was, for people and for the record.

Serves the guide's "Data Loss / Corruption". The rows are chosen in tasks/rescue_choice.py and put back in
tasks/rescue_rows.py.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from tasks.command import Statement
from tasks.damage import grid


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableRescue(_Part):
    """What would be put back into one table, in rows. `needed` ones only because others refer to them."""

    table: str
    key: tuple[str, ...]
    compared: tuple[str, ...]
    missing: int
    changed: int
    needed: int
    by_tenant: dict[str, tuple[int, int]]  # tenant's key, "" for none: missing, changed


class Rescue(_Part):
    """What would be put back, parents first; `at` is the moment of the live data that was assessed."""

    live: str
    beside: str
    at: datetime
    tables: tuple[TableRescue, ...]
    tenants: dict[str, str]
    chosen: tuple[str, ...]  # tables that were asked for
    of: tuple[str, ...]  # tenants that were asked for; none: all
    include_changed: bool
    left_out: tuple[str, ...] = ()  # what cannot be put back this way, and why
    done: bool = False  # this is what came back

    @property
    def rows(self) -> int:
        """How many rows would be put back."""
        return sum(table.missing + table.changed for table in self.tables)

    def came_back(self, done: PutBack) -> Rescue:
        """The same with only those rows that are there now."""
        there = []
        for t in self.tables:
            by_tenant = done.tables[t.table].by_tenant if t.table in done.tables else {}
            missing, changed = (sum(counts[n] for counts in by_tenant.values()) for n in (0, 1))
            there.append(t.model_copy(update={"by_tenant": by_tenant, "missing": missing, "changed": changed}))
        return self.model_copy(update={"tables": tuple(there), "done": True})

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        if not self.rows:
            return "nothing came back" if self.done else "nothing to put back"
        words = "is back: " if self.done else "to put back: "
        return words + ", ".join(f"{t.missing + t.changed:,} of {t.table}" for t in self.tables)

    @property
    def text(self) -> str:
        """A table for people: each table, and in it each tenant."""
        lines: list[tuple[str, ...]] = [("table", "missing", "changed", "because others need them")]
        for t in self.tables:
            lines.append((t.table, f"{t.missing:,}", f"{t.changed:,}", f"{t.needed:,}" if t.needed else ""))
            for tenant, (missing, changed) in t.by_tenant.items():
                lines.append((f"  {self._called(tenant)}", f"{missing:,}", f"{changed:,}", ""))
        return "\n".join([grid(lines) if self.rows else self.summary, *self.left_out])

    @property
    def statements(self) -> tuple[Statement, ...]:
        """What would run, for people to read."""
        sql = ["BEGIN", "SET LOCAL session_replication_role = replica"]
        for t in self.tables:
            lost = ", ".join(self._called(tenant) for tenant, counts in t.by_tenant.items() if counts[0])
            spoilt = ", ".join(self._called(tenant) for tenant, counts in t.by_tenant.items() if counts[1])
            # For people only: what runs is built of quoted identifiers, in tasks/rows.py.
            if t.changed:
                which = f"{t.changed:,} changed rows of {self.beside} ({spoilt}) WHERE the row is still as assessed"
                sql.append(" ".join(("UPDATE", t.table, "SET … FROM", which)))
            if t.missing:
                which = f"{t.missing:,} missing rows of {self.beside} ({lost}) ON CONFLICT DO NOTHING"
                sql.append(" ".join(("INSERT INTO", t.table, "SELECT", which)))
        return tuple(Statement(self.live, words) for words in [*sql, "COMMIT"])

    def _called(self, tenant: str) -> str:
        return f"{self.tenants[tenant]} ({tenant})" if tenant in self.tenants else "of no tenant"


class TablePutBack(_Part):
    """What was put back into one table, in rows; `already` there were the others, but for those `kept` as they are.

    `by_tenant` counts what is there now, put back by this or by an earlier try that was cut off.
    """

    missing: int = 0
    changed: int = 0
    already: int = 0
    by_tenant: dict[str, tuple[int, int]] = {}  # tenant's key, "" for none: missing, changed
    kept: int = 0  # not put back: touched since the assessment, or key or unique value taken by another row
    examples: tuple[str, ...] = ()  # keys of some of these


class PutBack(_Part):
    """What a rescue did; every row counted as put back was compared with the backup before the commit."""

    tables: dict[str, TablePutBack]
    sequences: tuple[str, ...] = ()  # raised

    @property
    def rows(self) -> int:
        """How many rows were put back."""
        return sum(table.missing + table.changed for table in self.tables.values())

    @property
    def summary(self) -> str:
        """One line for the timeline."""
        put = [f"{t.missing + t.changed:,} of {title}" for title, t in self.tables.items() if t.missing + t.changed]
        kept = [
            f"{t.kept:,} of {title} not, as they were touched or their keys taken since: {', '.join(t.examples)}"
            for title, t in self.tables.items()
            if t.kept
        ]
        words = f"put back {', '.join(put)}" if put else "put back nothing: all that was chosen is there"
        if not put and kept:
            words = "put back nothing"
        return "; ".join([words, *kept])
