"""Charts as inline SVG that stretches with the page; their text stays HTML, readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from muxrec.evaluation.report.markup import Markup, join, tag


@dataclass(frozen=True)
class Series:
    """One line or one set of bars.

    Attributes:
        name: Name in the legend.
        points: ``(x, y)``, x rising.
        spans: Interval of y at every point, drawn as a whisker; none for lines without intervals.
    """

    name: str
    points: Sequence[tuple[float, float]]
    spans: Sequence[tuple[float, float]] = ()


def interval_track(
    low: float, mean: float, high: float, *, within: tuple[float, float], kind: str
) -> Markup:
    """A dot with its interval on a track from ``within[0]`` to ``within[1]``; zero gets a line."""

    def at(value: float) -> str:
        first, last = within
        share = (value - first) / (last - first) if last > first else 0.5
        return f"{2 + 96 * min(1.0, max(0.0, share)):.2f}%"

    zero = tag("line", x1=at(0), x2=at(0), y1="0", y2="100%", class_="zero")
    return tag(
        "svg",
        zero if within[0] < 0 < within[1] else Markup(""),
        tag("line", x1=at(low), x2=at(high), y1="50%", y2="50%", class_="whisker"),
        tag("circle", cx=at(mean), cy="50%", r="4.5"),
        class_=f"track {kind}",
        aria_hidden="true",
    )


def line_chart(
    series: Sequence[Series], *, label: str, x_name: str, digits: int = 1, log_x: bool = False
) -> Markup:
    """Lines over x, with the first and last x and the smallest and largest y written beside.

    Args:
        series: At most six; each has at least one point.
        label: What the chart shows, read to those who do not see it.
        x_name: Name of the x axis.
        digits: Decimals of the y labels.
        log_x: Whether x is spaced by its logarithm.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    ys += [end for line in series for span in line.spans for end in span]
    low, high = _padded(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        return 100 * _share(x, min(xs), max(xs), log=log_x), 100 - 100 * _share(y, low, high)

    lines = [
        _line([place(x, y) for x, y in line.points], number) for number, line in enumerate(series)
    ]
    whiskers = [
        _whisker(place(x, start), place(x, end), number)
        for number, line in enumerate(series)
        for (x, _), (start, end) in zip(line.points, line.spans, strict=False)
    ]
    plot = tag(
        "svg",
        *_grid(),
        *whiskers,
        *lines,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    return _framed(
        plot,
        label=label,
        names=[line.name for line in series],
        y_labels=(f"{max(ys):.{digits}f}", f"{min(ys):.{digits}f}"),
        x_labels=(_number(min(xs)), x_name, _number(max(xs))),
    )


def _number(value: float) -> str:
    """Whole numbers in full, with commas; others short."""
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def bar_chart(series: Sequence[Series], *, label: str, names: Sequence[str], x_name: str) -> Markup:
    """Grouped bars from zero, y in percent; ``names`` are the groups' labels."""
    top = max((y for bars in series for _, y in bars.points), default=0) or 1
    step = 100 / max(1, len(names))
    width = 0.8 * step / max(1, len(series))
    bars = [
        tag(
            "rect",
            x=f"{at * step + 0.1 * step + number * width:.2f}",
            y=f"{100 - 94 * y / top:.2f}",
            width=f"{width:.2f}",
            height=f"{94 * y / top:.2f}",
            class_=f"bar s{number}",
        )
        for number, group in enumerate(series)
        for at, (_, y) in enumerate(group.points)
    ]
    plot = tag(
        "svg",
        *_grid(),
        *bars,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    groups = tag("div", *(tag("span", name) for name in names), class_="groups", aria_hidden="true")
    return _framed(
        plot,
        label=label,
        names=[line.name for line in series],
        y_labels=(f"{top:.0f} %", "0 %"),
        x_labels=("", x_name, ""),
        under=groups,
    )


def _line(points: list[tuple[float, float]], number: int) -> Markup:
    route = " ".join(f"{'L' if at else 'M'}{x:.2f} {y:.2f}" for at, (x, y) in enumerate(points))
    # A zero-length stroke with round caps is a dot that a stretched drawing does not distort.
    few = points if len(points) <= 12 else []
    dots = [tag("path", d=f"M{x:.2f} {y:.2f}h0", class_=f"dot s{number}") for x, y in few]
    return join(tag("path", d=route, class_=f"curve s{number}"), *dots)


def _whisker(start: tuple[float, float], end: tuple[float, float], number: int) -> Markup:
    (x, low), (_, high) = start, end
    return tag("path", d=f"M{x:.2f} {low:.2f}V{high:.2f}", class_=f"span s{number}")


def _framed(
    plot: Markup,
    *,
    label: str,
    names: Sequence[str],
    y_labels: tuple[str, str],
    x_labels: tuple[str, str, str],
    under: Markup | None = None,
) -> Markup:
    legend = [tag("span", name, class_=f"key s{number}") for number, name in enumerate(names)]
    return tag(
        "figure",
        tag("div", *legend, class_="legend"),
        tag(
            "div",
            tag("div", *(tag("span", text) for text in y_labels), class_="y"),
            tag("div", plot, class_="plot"),
            class_="frame",
        ),
        under or Markup(""),
        tag("div", *(tag("span", text) for text in x_labels), class_="x"),
        class_="chart",
        role="img",
        aria_label=label,
    )


def _grid() -> list[Markup]:
    return [tag("path", d=f"M0 {y}H100", class_="grid") for y in (0.5, 33, 66, 99.5)]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def _share(value: float, low: float, high: float, *, log: bool = False) -> float:
    if high <= low:
        return 0.5
    if log and low > 0:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
