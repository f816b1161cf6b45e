"""The picture: throughput and latency of each contender's best settings, as a small SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from bench.figures import median

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.targets import Run

WIDTH, LEFT, RIGHT = 760, 150, 110
ROW, GAP = 24, 44
OFF_SCALE = 40
COLOURS = {"ours": "#2f6feb", "peer": "#9aa4b2", "limit": "#d9b44a"}
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}"
)


def draw(cells: Mapping[str, Sequence[Run]]) -> str:
    """Return the SVG, without the cells that weren't measured."""
    panels = [
        ("No-op jobs a second, one worker process", "throughput", "jobs_per_second", max, ",.0f"),
        ("Enqueue to start, median ms (less is better)", "latency", "p50_ms", min, ",.2f"),
    ]
    parts: list[str] = []
    y = 0
    for title, cell, figure, best, shape in panels:
        bars = choose_best(cells.get(cell, ()), figure, best)
        if not bars:
            continue
        parts.append(f'<text class="title" x="0" y="{y + 18}">{escape(title)}</text>')
        y += 30
        values = [value for _, _, value in bars]
        # Latencies differ by a factor of a thousand: longer bars are cut off, and have their value.
        largest = min(max(values), OFF_SCALE * min(values)) if best is min else max(values)
        for name, kind, value in bars:
            length = max(2.0, min(1.0, value / largest) * (WIDTH - LEFT - RIGHT))
            mark = "» " if value > largest else ""
            parts.append(
                f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
                f'<rect x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="{ROW - 7}" rx="2"'
                f' fill="{COLOURS[kind]}"/>'
                f'<text x="{LEFT + length + 6:.1f}" y="{y + 15}">{mark}{value:{shape}}</text>'
            )
            y += ROW
        y += GAP - ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}">'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>\n"
    )


def choose_best(
    runs: Sequence[Run], figure: str, best: Callable[..., float]
) -> list[tuple[str, str, float]]:
    """Return name, kind and median of each contender's best settings, the best contender first."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if figure in run:
            grouped.setdefault((run["name"], run["label"]), []).append(run)
    found: dict[str, tuple[str, str, float]] = {}
    for (name, _), of_label in grouped.items():
        value = median([run[figure] for run in of_label])
        if name in found:
            value = best(value, found[name][2])
        found[name] = (name, of_label[0]["kind"], value)
    return sorted(found.values(), key=lambda bar: bar[2], reverse=best is max)
