"""The figures as a picture: a bar for each subject's median, a line from its least to its most."""

from __future__ import annotations

from html import escape

from loadtests.bench import peak
from loadtests.bench.figures import Figure, Figures
from loadtests.bench.subjects import DOORBUSTER

WIDTH, ROW, BAR, TOP = 760, 34, 20, 44
LEFT, RIGHT = 200, 120
PEER, OWN, INK = "#9aa5b1", "#2f6fde", "#1f2933"


def picture(figures: Figures) -> str:
    """SVG. Drawn by hand: seven bars need no library."""
    found = [figures.get(peak.PART, subject, peak.ANSWERS) for subject in figures.subjects(peak.PART)]
    rows = [figure for figure in found if figure is not None]
    height = TOP + ROW * len(rows) + 12
    most = max((figure.most for figure in rows), default=1.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    drawn = [_row(figure, TOP + ROW * number, scale) for number, figure in enumerate(rows)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
            f' font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
            "<title>Answers a second on one core</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            '<text x="16" y="26" font-size="15" font-weight="600">Answers a second on one core</text>',
            *drawn,
            "</svg>\n",
        ]
    )


def _row(figure: Figure, top: int, scale: float) -> str:
    middle = top + ROW / 2
    colour = OWN if figure.subject.startswith(DOORBUSTER) else PEER
    least, most = LEFT + figure.least * scale, LEFT + figure.most * scale
    ends = "".join(f"M{end:.1f} {middle - 5:g}v10" for end in (least, most))
    return "\n".join(
        [
            f'<text x="{LEFT - 10}" y="{middle + 4.5:g}" text-anchor="end">{escape(figure.subject)}</text>',
            f'<rect x="{LEFT}" y="{middle - BAR / 2:g}" width="{figure.median * scale:.1f}" height="{BAR}"'
            f' rx="2" fill="{colour}"/>',
            f'<path d="M{least:.1f} {middle:g}H{most:.1f}{ends}" stroke="{INK}" fill="none"/>',
            f'<text x="{most + 8:.1f}" y="{middle + 4.5:g}">{figure.median:,.0f}</text>',
        ]
    )
