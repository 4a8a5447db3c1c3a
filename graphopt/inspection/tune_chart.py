"""Time against quality of the mixes that were measured, as text and as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphopt.dependencies import require
from graphopt.inspection.tuning import Mix, Tuned

_COLUMNS, _ROWS = 60, 14
_WIDTH, _HEIGHT, _MARGIN = 640, 360, 56
_FEW = 1e-12  # a span of nothing

_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ width }} {{ height }}" \
font-family="sans-serif" font-size="12" fill="currentColor" color="#222">
<title>{{ title }}</title>
<rect width="{{ width }}" height="{{ height }}" fill="#fff"/>
<path d="M{{ left }} {{ top }}V{{ bottom }}H{{ right }}" fill="none" stroke="#888"/>
<path d="M{{ left }} {{ limit }}H{{ right }}" stroke="#c33" stroke-dasharray="4"/>
<text x="{{ right }}" y="{{ limit - 4 }}" text-anchor="end" fill="#c33">{{ budget }}</text>
<polyline points="{{ frontier }}" fill="none" stroke="#36c"/>
{%- for p in points %}
<circle cx="{{ p.x }}" cy="{{ p.y }}" r="{{ 6 if p.best else 3 }}" \
fill="{{ '#2a2' if p.best else '#36c' if p.holds else '#c33' }}"><title>{{ p.label }}</title>\
</circle>
{%- if p.name %}
<text x="{{ p.x + 7 }}" y="{{ p.y - 5 }}">{{ p.name }}</text>
{%- endif %}
{%- endfor %}
{%- for x, text in x_marks %}
<text x="{{ x }}" y="{{ bottom + 16 }}" text-anchor="middle">{{ text }}</text>
{%- endfor %}
{%- for y, text in y_marks %}
<text x="{{ left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ text }}</text>
{%- endfor %}
<text x="{{ (left + right) / 2 }}" y="{{ height - 10 }}" text-anchor="middle">ms</text>
<text x="{{ left }}" y="20">{{ title }}</text>
</svg>
"""


@dataclass(frozen=True)
class _Scale:
    """Where a mix lies: from 0, the fastest and the worst, to 1.

    Args:
        tuned: whose mixes.
    """

    tuned: Tuned

    @property
    def mixes(self) -> list[Mix]:
        """All, each once."""
        found = self.tuned
        return list(dict.fromkeys([*found.tried, *found.whole]))

    @property
    def times(self) -> tuple[float, float]:
        """The shortest and the longest."""
        ms = [mix.ms for mix in self.mixes]
        return min(ms), max(ms)

    @property
    def values(self) -> tuple[float, float]:
        """The least and the largest value that is drawn, and the limit between them."""
        drawn = [m.value for m in self.mixes if math.isfinite(m.value)] + [self.limit]
        return min(drawn), max(drawn)

    @property
    def limit(self) -> float:
        """The worst value that is good enough."""
        return self.tuned.budget.limit(self.tuned.whole[0].value)

    def x(self, ms: float) -> float:
        """Of a time."""
        low, high = self.times
        return (ms - low) / max(high - low, _FEW)

    def y(self, value: float) -> float:
        """Of a value, 1 for the best; infinite ones lie at the edges."""
        low, high = self.values
        part = (min(max(value, low), high) - low) / max(high - low, _FEW)
        return part if self.tuned.budget.larger else 1 - part


def text_chart(tuned: Tuned) -> str:
    """The chart for a terminal of 80 columns: * is the plan, o fits, x does not."""
    scale = _Scale(tuned)
    canvas = [[" "] * (_COLUMNS + 1) for _ in range(_ROWS + 1)]

    def row(value: float) -> int:
        return _ROWS - round(scale.y(value) * _ROWS)

    canvas[row(scale.limit)] = ["-"] * (_COLUMNS + 1)
    for mix in sorted(scale.mixes, key=lambda m: (m in tuned.whole, m is tuned.best)):
        mark = "*" if mix is tuned.best else "o" if mix.holds else "x"
        label = mark + (f" {mix.name}" if mix in tuned.whole else "")
        column = round(scale.x(mix.ms) * _COLUMNS)
        if column + len(label) > _COLUMNS + 1:  # to the left of its mark
            label = " ".join(reversed(label.split()))
            column -= len(label) - 1
        canvas[row(mix.value)][column : column + len(label)] = label
    low, high = (scale.tuned.budget.shown(v) for v in scale.values)
    best, worst = (high, low) if tuned.budget.larger else (low, high)
    sides = [""] * (_ROWS + 1)
    sides[0], sides[-1] = best, worst
    sides[row(scale.limit)] = sides[row(scale.limit)] or tuned.budget.shown(scale.limit)
    lines = [
        f"{side:>10} |{''.join(line)}".rstrip() for side, line in zip(sides, canvas, strict=True)
    ]
    first, last = (f"{ms:.3g} ms" for ms in scale.times)
    lines.append(" " * 12 + first + last.rjust(_COLUMNS + 1 - len(first)))
    lines.append(" " * 12 + f"* the plan   o fits   x misses {tuned.budget.text}")
    return "\n".join(lines)


def svg_chart(tuned: Tuned) -> str:
    """The chart as an SVG file."""
    jinja2 = require("jinja2", "a chart")
    scale = _Scale(tuned)
    left, right, top, bottom = _MARGIN + 20, _WIDTH - _MARGIN, _MARGIN, _HEIGHT - _MARGIN

    def at(mix: Mix) -> tuple[float, float]:
        x = left + scale.x(mix.ms) * (right - left)
        return round(x, 1), height(mix.value)

    def height(value: float) -> float:
        return round(bottom - scale.y(value) * (bottom - top), 1)

    points = [
        {
            "x": at(mix)[0],
            "y": at(mix)[1],
            "best": mix is tuned.best,
            "holds": mix.holds,
            "name": mix.name if mix in tuned.whole else "plan" if mix is tuned.best else "",
            "label": f"{mix.name}: {mix.ms:.3g} ms, {tuned.budget.shown(mix.value)}",
        }
        for mix in scale.mixes
    ]
    template = jinja2.Environment(autoescape=True).from_string(_SVG)
    return str(
        template.render(
            width=_WIDTH,
            height=_HEIGHT,
            left=left,
            right=right,
            top=top,
            bottom=bottom,
            title=f"{tuned.model} for {tuned.target}: {tuned.summary}",
            budget=tuned.budget.text,
            limit=height(scale.limit),
            frontier=" ".join(f"{x},{y}" for x, y in map(at, tuned.frontier)),
            points=points,
            x_marks=[(left, f"{scale.times[0]:.3g}"), (right, f"{scale.times[1]:.3g}")],
            y_marks=[(height(v), tuned.budget.shown(v)) for v in scale.values],
        )
    )
