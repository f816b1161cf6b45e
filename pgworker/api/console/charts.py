"""Small charts, drawn on the server as inline SVG. Pure.

Each has a title and a description for screen readers. Nothing in them is styled inline, because the
page's Content-Security-Policy forbids it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from pgworker.status.durations import format_precise_duration

if TYPE_CHECKING:
    from pgworker.status.overview import PhaseLatency

# In units of the drawing; the style sheet sets its size.
WIDTH, HEIGHT = 240, 44
GAP = 2
# So that an hour with quick phases differs from one without any.
LOWEST_BAR = 1.5


def draw_latency_chart(latency: PhaseLatency) -> Markup:
    """Return a chart: a column for each of the last 24 hours, the median in front of the p95."""
    step = WIDTH / len(latency.hours)
    tallest = max((p95 for _, p95 in filter(None, latency.hours)), default=0.0) or 1.0
    parts = [_draw_bar("axis", 0, 1, width=WIDTH)]
    for index, hour in enumerate(latency.hours):
        if hour is None:
            continue
        p50, p95 = hour
        for name, seconds in (("p95", p95), ("p50", p50)):
            height = max(seconds / tallest * (HEIGHT - 2), LOWEST_BAR)
            parts.append(_draw_bar(name, index * step + GAP / 2, height, width=step - GAP))
    # `aria-labelledby` needs ids, which must be unique on the page.
    key = f"chart-{latency.workflow}-{latency.phase}"
    return Markup(
        '<svg class="chart" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img"'
        ' aria-labelledby="{key}-title {key}-text"><title id="{key}-title">{title}</title>'
        '<desc id="{key}-text">{text}</desc>{bars}</svg>'
    ).format(
        width=WIDTH,
        height=HEIGHT,
        key=key,
        title=f"Time in {latency.phase}, hour by hour",
        text=describe(latency),
        bars=Markup("").join(parts),
    )


def describe(latency: PhaseLatency) -> str:
    """Return what the chart shows, in words."""
    medians = [(hour[0], ago) for ago, hour in enumerate(reversed(latency.hours)) if hour]
    p50, p95, longest = map(format_precise_duration, (latency.p50, latency.p95, latency.longest))
    text = (
        f"{latency.count} ended in the last 24 hours; half of them within {p50}, "
        f"95 % within {p95}, the longest took {longest}."
    )
    if len(medians) < 2:
        return text
    slowest, ago = max(medians)
    when = "in the last hour" if ago == 0 else f"{ago} h ago"
    return f"{text} The slowest hour was {when}: a median of {format_precise_duration(slowest)}."


def _draw_bar(name: str, x: float, height: float, *, width: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        name, x, HEIGHT - height, width, height
    )
