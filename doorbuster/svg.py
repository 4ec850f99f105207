"""Pictures as parts of a page."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "text.parse_math": False,  # a SKU may have a dollar in it
}


def inline(figure: Figure, name: str, attributes: str = "", told: str = "") -> str:
    """The figure as an `svg` element, as wide as there is room: nothing that a file needs, and nothing that
    is elsewhere. `name` is another for each picture of a page; `told` is markup that stands first in it."""
    written = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(written, format="svg", transparent=True)
    svg = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>", "", written.getvalue(), flags=re.DOTALL)
    head, _, rest = svg.partition(">")
    box: Any = re.search(r'viewBox="[^"]*"', head)
    rest = rest.replace("xlink:href", "href")
    # Every id of one picture begins with its name, so that none of another is meant.
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r'(href="#|url\(#)', rf"\1{name}-", rest)
    return f"<svg {box[0]} {attributes}>{told}{rest.strip()}"
