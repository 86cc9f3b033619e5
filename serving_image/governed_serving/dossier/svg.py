"""Plots as inline SVG: curves, dot plots with intervals, forest plots, signed bars. No script, no external resource.

Colours come from CSS variables of the page, so that light, dark and print fit; marks differ in shape as well as in
colour.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from governed_api.page.markup import Safe, tag, text

__all__ = ["Estimate", "Line", "curves", "dots", "forest", "signed_bars", "ticks"]

_WIDTH = 720.0
_ROW = 26.0
_SHAPES = ("circle", "diamond", "square", "triangle")


@dataclass(frozen=True)
class Estimate:
    """A value with its interval (None: not known). ``series`` picks colour and shape; ``strong`` draws it as the
    summary."""

    label: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    note: str = ""
    series: int = 0
    strong: bool = False


@dataclass(frozen=True)
class Line:
    """A named curve: (x, y) points, and (x, low, high) of a band about it. A ``guide`` is dashed, in no legend."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    guide: bool = False


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high], about ``count`` of them."""
    if not high > low:
        high = low + 1.0
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def curves(title: str, lines: Sequence[Line], x_label: str, y_label: str, height: float = 260) -> Safe:
    """Line chart; empty when no line has a point."""
    points = [p for line in lines for p in line.points if math.isfinite(p[1])]
    if not points:
        return Safe("")
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    ys += [end for line in lines for _, *ends in line.band for end in ends]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys))
    x = _Scale(min(xs), max(max(xs), min(xs) + 1), 56, _WIDTH - 16)
    y = _Scale(y_ticks[0], y_ticks[-1], height - 40, 30)
    parts = [_y_axis(y, y_ticks, x), tag("text", y_label, x=8, y=16, class_="axis")]
    parts += [tag("text", _short(t), x=x(t), y=height - 22, class_="tick mid") for t in x_ticks if x.low <= t <= x.high]
    parts.append(tag("text", x_label, x=_WIDTH - 16, y=height - 4, class_="axis end"))
    for number, line in enumerate(lines):
        shown = [(x(a), y(b)) for a, b in line.points if math.isfinite(b)]
        if line.band:
            around = [(a, low) for a, low, _ in line.band] + [(a, high) for a, _, high in reversed(line.band)]
            outline = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in around)
            parts.append(tag("polygon", points=outline, class_=f"reach s{number % 6}"))
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in shown)
        parts.append(tag("polyline", points=path, class_="curve guide" if line.guide else f"curve s{number % 6}"))
        if len(shown) == 1:
            parts.append(_mark(number, *shown[0]))
    parts.append(_legend([line.name for line in lines if not line.guide], 150, 12))
    return _figure(title, f"{y_label} over {x_label}: " + _spoken(lines), height, parts)


def dots(title: str, rows: Mapping[str, Sequence[Estimate]], series: Sequence[str], x_label: str) -> Safe:
    """Rates with intervals: a band per key of ``rows``, in it a dot per series. Values from 0 to 1."""
    per = max((len(r) for r in rows.values()), default=0)
    if not per:
        return Safe("")
    band = 14.0 * per + 14.0
    height = 36 + band * len(rows) + 40
    x = _Scale(0.0, 1.0, 150, _WIDTH - 136)
    parts = [_x_axis(x, [0, 0.25, 0.5, 0.75, 1], 30, height - 34, _percent), _legend(series, 150, 12)]
    for place, (name, estimates) in enumerate(rows.items()):
        top = 34 + place * band
        if place % 2 == 0:
            parts.append(tag("rect", x=0, y=top, width=_WIDTH, height=band, class_="band"))
        parts.append(tag("text", _clip(name, 22), x=140, y=top + band / 2 + 4, class_="label end"))
        for line, estimate in enumerate(estimates):
            height_here = top + 14 + line * 14
            parts.append(_whisker(x, estimate, height_here))
            parts.append(tag("text", estimate.note, x=_WIDTH - 124, y=height_here + 4, class_="note"))
    parts.append(tag("text", x_label, x=(x.start + x.end) / 2, y=height - 4, class_="axis mid"))
    spoken = "; ".join(f"{k}: " + ", ".join(f"{e.label} {_percent(e.value)}" for e in r) for k, r in rows.items())
    return _figure(title, spoken, height, parts)


def forest(
    title: str,
    rows: Sequence[Estimate],
    x_label: str,
    bounds: tuple[float | None, float | None] = (None, None),
    centre: float = 0.0,
) -> Safe:
    """Forest plot: estimates with intervals about ``centre``; the manifest's ``bounds`` are shaded."""
    drawn = [
        v for r in rows for v in (r.value, r.lower, r.upper, *bounds, centre) if v is not None and math.isfinite(v)
    ]
    if not [r for r in rows if r.value is not None]:
        return Safe("")
    reach = min(max(abs(v - centre) for v in drawn) or 0.1, 10.0)
    marks = [t for t in ticks(centre - reach, centre + reach, 5) if abs(t - centre) <= reach * 1.35]
    shown = _signed if centre == 0 else _plain
    height = 34 + _ROW * len(rows) + 44
    x = _Scale(min(marks[0], centre - reach), max(marks[-1], centre + reach), 200, _WIDTH - 178)
    bottom = height - 38
    parts = [_allowed(x, bounds, 24, bottom), _x_axis(x, marks, 24, bottom, _signed_tick if centre == 0 else _short)]
    parts.append(tag("line", x1=x(centre), x2=x(centre), y1=18, y2=bottom, class_="centre"))
    for place, row in enumerate(rows):
        y = 34 + place * _ROW + _ROW / 2 - 6
        weight = "strong " if row.strong else ""
        parts.append(tag("text", _clip(row.label, 28), x=190, y=y + 4, class_=f"{weight}label end"))
        if row.value is not None:
            parts.append(_whisker(x, row, y))
        parts.append(tag("text", row.note or _interval(row, shown), x=_WIDTH - 164, y=y + 4, class_=f"{weight}note"))
    parts.append(tag("text", x_label, x=(x.start + x.end) / 2, y=height - 4, class_="axis mid"))
    return _figure(title, "; ".join(f"{r.label} {_interval(r, shown)}" for r in rows), height, parts)


def signed_bars(title: str, rows: Sequence[Estimate], x_label: str) -> Safe:
    """Horizontal bars from zero with interval whiskers: attributions, importances."""
    values = [v for r in rows for v in (r.value, r.lower, r.upper) if v is not None and math.isfinite(v)]
    if not values:
        return Safe("")
    low, high = min(0.0, *values), max(0.0, *values)
    marks = ticks(low, high, 5)
    height = 12 + _ROW * len(rows) + 44
    x = _Scale(marks[0], marks[-1], 200, _WIDTH - 90)
    bottom = height - 38
    parts = [_x_axis(x, marks, 6, bottom, _short)]
    for place, row in enumerate(rows):
        y = 8 + place * _ROW
        parts.append(tag("text", _clip(row.label, 28), x=190, y=y + 16, class_="label end"))
        value = row.value or 0.0
        side = "up" if value >= 0 else "down"
        left, right = sorted((x(0.0), x(value)))
        parts.append(tag("rect", x=left, y=y + 4, width=max(right - left, 0.5), height=_ROW - 10, class_=f"bar {side}"))
        if row.lower is not None and row.upper is not None and row.upper > row.lower:
            parts.append(_bar_whisker(x, row.lower, row.upper, y + _ROW / 2 - 1))
        parts.append(tag("text", row.note or _signed(value), x=_WIDTH - 82, y=y + 16, class_="note"))
    parts.append(tag("line", x1=x(0.0), x2=x(0.0), y1=6, y2=bottom, class_="centre"))
    parts.append(tag("text", x_label, x=(x.start + x.end) / 2, y=height - 4, class_="axis mid"))
    return _figure(title, "; ".join(f"{r.label} {_signed(r.value or 0.0)}" for r in rows), height, parts)


class _Scale:
    """A linear map from data to pixels, clipped at its ends."""

    def __init__(self, low: float, high: float, start: float, end: float):
        self.low, self.high, self.start, self.end = low, high if high > low else low + 1.0, start, end

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _figure(title: str, description: str, height: float, parts: Sequence[Safe]) -> Safe:
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *parts,
        viewBox=f"0 0 {_WIDTH:g} {height:g}",
        role="img",
        aria_label=title,
        class_="plot",
    )


def _y_axis(y: _Scale, marks: Sequence[float], x: _Scale) -> Safe:
    return text(
        [
            [
                tag("line", x1=x.start, x2=x.end, y1=y(t), y2=y(t), class_="grid"),
                tag("text", _short(t), x=x.start - 8, y=y(t) + 4, class_="tick end"),
            ]
            for t in marks
        ]
    )


def _x_axis(x: _Scale, marks: Sequence[float], top: float, bottom: float, shown: Callable[[float], str]) -> Safe:
    return text(
        [
            [
                tag("line", x1=x(t), x2=x(t), y1=top, y2=bottom, class_="grid"),
                tag("text", shown(t), x=x(t), y=bottom + 15, class_="tick mid"),
            ]
            for t in marks
        ]
    )


def _allowed(x: _Scale, bounds: tuple[float | None, float | None], top: float, bottom: float) -> Safe:
    if bounds == (None, None):
        return Safe("")
    left = x.start if bounds[0] is None else x(bounds[0])
    right = x.end if bounds[1] is None else x(bounds[1])
    return tag(
        "rect",
        tag("title", "allowed by the manifest"),
        x=left,
        y=top,
        width=right - left,
        height=bottom - top,
        class_="allowed",
    )


def _whisker(x: _Scale, estimate: Estimate, y: float) -> Safe:
    parts: list[Safe] = []
    if estimate.lower is not None or estimate.upper is not None:
        low = x.low if estimate.lower is None else estimate.lower
        high = x.high if estimate.upper is None else estimate.upper
        parts.append(tag("line", x1=x(low), x2=x(high), y1=y, y2=y, class_=f"whisker s{estimate.series % 6}"))
    if estimate.value is not None:
        parts.append(_mark(estimate.series, x(estimate.value), y, 6.0 if estimate.strong else 4.5))
    return text(parts)


def _bar_whisker(x: _Scale, low: float, high: float, y: float) -> Safe:
    ends = [tag("line", x1=x(v), x2=x(v), y1=y - 3.0, y2=y + 3.0, class_="range") for v in (low, high)]
    return text([tag("line", x1=x(low), x2=x(high), y1=y, y2=y, class_="range"), *ends])


def _mark(series: int, x: float, y: float, r: float = 4.5) -> Safe:
    name = f"mark s{series % 6}"
    shape = _SHAPES[series % len(_SHAPES)]
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=r, class_=name)
    if shape == "square":
        return tag("rect", x=x - r, y=y - r, width=2 * r, height=2 * r, class_=name)
    corners = {
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "triangle": [(0, -1.2), (1.2, 1.0), (-1.2, 1.0)],
    }[shape]
    return tag("polygon", points=" ".join(f"{x + a * r:.1f},{y + b * r:.1f}" for a, b in corners), class_=name)


def _legend(names: Sequence[str], x: float, y: float) -> Safe:
    parts, at = [], x
    for number, name in enumerate(names):
        parts.append(_mark(number, at, y, 4.5))
        parts.append(tag("text", name, x=at + 10, y=y + 4, class_="tick"))
        at += 34 + 6.6 * len(name)
    return text(parts)


def _spoken(lines: Sequence[Line]) -> str:
    return "; ".join(
        f"{line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}" for line in lines if line.points
    )


def _interval(row: Estimate, shown: Callable[[float], str]) -> str:
    if row.value is None:
        return "not defined"
    if row.lower is None and row.upper is None:
        return shown(row.value)
    low = "−∞" if row.lower is None else shown(row.lower)
    high = "∞" if row.upper is None else shown(row.upper)
    return f"{shown(row.value)} [{low}, {high}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _signed_tick(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def _plain(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.4g} %"


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _clip(value: str, length: int) -> str:
    """With an ellipsis in the middle where it is too long: names that are alike differ at their ends."""
    if len(value) <= length:
        return value
    end = length // 2
    return f"{value[: length - end - 1]}…{value[-end:]}"
