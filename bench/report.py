"""The report in Markdown: ratios and their targets first, then every figure. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import field
from bench.figures import median
from bench.targets import judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.targets import Run, Verdict

# Cores that other processes may use during a run before its figures are doubtful.
QUIET_CORES = 0.2

INTRODUCTION = """\
Made by `make bench`. Compare ratios, not machines: everything was measured in one run on one
server, and the contenders took turns. Figures are medians of the rounds."""

METHOD = """\
Each run has a fresh copy of a database that was filled, vacuumed, analysed and checkpointed. The
first tenth of its jobs is the warm-up and doesn't count. A throughput run ends when its last job is
durably finished. Every contender is a process of its own with one worker and the settings that its
documentation recommends for many small jobs; its defaults are measured as well.

With many rows in the table the runs are short and many, and continue in the same database. 80,000
jobs warm it up first: the first change of a page after a checkpoint writes the whole page into the
WAL, and a large table has many pages. With several processes, the jobs are counted that finish
between the moment when a tenth of all jobs has been claimed and the moment when all have been: the
same number of jobs is running at both.

Ours is a `Worker` of the library whose phase does nothing, with everything that a job is promised:
lease, fence, audit events, the client's status. `pgworker run` means the installed command.

The bare loop claims and completes the rows of a plain table, 500 with each statement, and promises
nothing. pgworker's SQL alone is the same loop around its own `claim` and `complete`: no worker can
be faster on one connection. The floor of latency is a durable insert whose trigger notifies a bare
LISTEN connection. A listener that claims commits once more, as every queue must whose claims
survive a crash.

Clients whose projects come up: the real `await_project` phase in a real `pgworker run`, with a stub
of a provider in the same process that answers "coming up" at once. The delay of a poll is the time
from when it is due to its first line; polls that are overdue at the end count as well."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the median over the rounds; with `spread`, all runs as well."""

    title: str
    figure: str
    format: str = ",.0f"
    spread: bool = False

    def format_cell(self, runs: Sequence[Run]) -> str:
        values = [run[self.figure] for run in runs if run.get(self.figure) is not None]
        if not values:
            return "–"
        shown = format(median(values), self.format)
        if self.spread:
            every = ", ".join(format(value, self.format) for value in values)
            shown = f"**{shown}** ({every})"
        return shown


USED = (
    Column("worker CPU, µs/job", "worker_cpu_us"),
    Column("server CPU, µs/job", "server_cpu_us"),
    Column("WAL, B/job", "wal_bytes"),
    Column("commits/job", "commits", ",.4f"),
)
RATE = Column("jobs/s (every round)", "jobs_per_second", spread=True)
TABLES: Mapping[str, tuple[str, tuple[Column, ...]]] = {
    "throughput": (
        "No-op jobs, one worker process",
        (RATE, *USED, Column("memory, MiB", "worker_mib")),
    ),
    "latency": (
        "From an enqueue to the handler's first line, idle worker, ms",
        (
            Column("median (every round)", "p50_ms", ".2f", spread=True),
            Column("p99", "p99_ms", ".2f"),
        ),
    ),
    "degradation": ("Throughput with many rows in the table", (RATE, *USED)),
    "enqueue": (
        "Bulk enqueue, one producer, 1,000 jobs in each call",
        (RATE, *USED[1:]),
    ),
    "awaiting": (
        "Clients whose projects come up, a poll every 5 s, one `pgworker run`",
        (
            Column("p99 of the delay, s", "late_p99_s", ".3f", spread=True),
            Column("median, s", "late_p50_s", ".3f"),
            Column("polls/s", "looks_per_second"),
            Column("connections", "connections"),
            Column("memory, MiB", "worker_mib"),
            Column("server, cores", "server_cores", ".2f"),
        ),
    ),
    "processes": (
        "`pgworker run`, several processes, one phase that does nothing",
        (RATE, *USED[1:3]),
    ),
    "tenants": (
        "A `postgres` tenant, from the client's insert to ready, s",
        (
            Column("end to end", "seconds", ".3f", spread=True),
            Column("CREATE DATABASE + psql", "raw_seconds", ".3f", spread=True),
            Column("ratio", "ratio", ".2f"),
            Column("the first one", "first_seconds", ".3f"),
        ),
    ),
}


def render(results: Mapping[str, Any], *, picture: str) -> str:
    """Return the report; `picture` is the relative path of its picture."""
    cells: Mapping[str, Sequence[Run]] = results["cells"]
    conditions: Mapping[str, Any] = results["conditions"]
    parts = [
        "# Benchmarks",
        INTRODUCTION,
        f"![Throughput and latency beside the peers]({picture})",
        "## Targets",
        render_verdicts(judge(cells)),
        *(render_section(name, runs) for name, runs in cells.items() if runs),
        "## How it was measured",
        render_conditions(conditions, cells),
    ]
    return "\n\n".join(parts) + "\n"


def render_verdicts(judged: Iterable[Verdict]) -> str:
    """Return the table of the targets."""
    rows = [
        (
            verdict.name,
            "–" if verdict.value is None else f"**{verdict.value:.2f}**",
            verdict.target,
            verdict.outcome,
        )
        for verdict in judged
    ]
    return render_table(("", "measured", "target", ""), rows)


def render_section(name: str, runs: Sequence[Run]) -> str:
    """Return the table of a cell, with a line for each contender."""
    title, columns = TABLES[name]
    labels = list(dict.fromkeys(run["label"] for run in runs if "failed" not in run))
    grouped = {
        label: [run for run in runs if run["label"] == label and "failed" not in run]
        for label in labels
    }
    rows = [
        (label, *(column.format_cell(grouped[label]) for column in columns)) for label in labels
    ]
    shown = render_table(("", *(column.title for column in columns)), rows)
    missing = [f"Not measured: {run['failed']}." for run in runs if "failed" in run]
    return "\n\n".join([f"## {title}", shown, *missing])


def render_conditions(conditions: Mapping[str, Any], cells: Mapping[str, Sequence[Run]]) -> str:
    """Return the conditions of the run."""
    every = [run for runs in cells.values() for run in runs]
    others = [run["others_cores"] for run in every if "others_cores" in run] or [0.0]
    absent = "; ".join(f"{name} ({why})" for name, why in field.ABSENT.items())
    facts = {
        "Date": conditions["date"],
        "Machine": conditions["machine"],
        "PostgreSQL": f"{conditions['postgres']}, {conditions['settings']}",
        "Python": conditions["python"],
        "pgworker": conditions["pgworker"],
        "Peers": conditions["peers"] or "none were installed",
        "Not measured": absent,
        "Rounds": f"{conditions['rounds']}, in {conditions['minutes']:.0f} minutes",
        "Other processes": f"{median(others):.2f} cores, at most {max(others):.2f}",
    }
    lines = [f"- {name}: {fact}" for name, fact in facts.items()]
    if conditions["scale"] != 1:
        lines.append(f"- **Only a quick look**: all counts were scaled by {conditions['scale']:g}.")
    if max(others) > QUIET_CORES:
        lines.append("- **The machine was not quiet**: don't quote these figures.")
    return "\n".join(lines) + "\n\n" + METHOD


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
