"""A page in one file, which shows itself in any browser and asks no network for anything.

The plots are Bokeh's; its JavaScript is taken from the installed package as the page is written. It and the page's
data are compressed, and the browser unpacks them.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bokeh.plotting import figure

NAME = "report.html"
ASSETS = Path(__file__).parent / "assets"


def why_no_page() -> str:
    """In words, where Bokeh is not installed; else nothing."""
    return "" if find_spec("bokeh") else f"no {NAME} is written: it needs Bokeh, `pip install bokeh`"


def page(kind: str, title: str, data: Mapping[str, Any], plots: Mapping[str, "figure"]) -> str:
    """The page as HTML.

    Args:
        kind: of page: `assets/<kind>.html` is its body, `assets/<kind>.js` what moves it.
        title: of the page.
        data: what the script shows: what JSON can say.
        plots: by the id of the element that they are put into.
    """
    from bokeh.core.types import ID
    from bokeh.embed import json_item
    from bokeh.resources import Resources

    library = "\n".join(Resources(mode="inline", components=["bokeh"], log_level="error").js_raw)
    items = [json_item(plot, ID(place)) for place, plot in plots.items()]
    parts = {
        "title": escape(title),
        "style": _asset("page.css"),
        "body": _asset(f"{kind}.html"),
        "library": packed(library),
        "data": packed(json.dumps({**data, "plots": items}, ensure_ascii=False, allow_nan=False)),
        "script": _asset("page.js") + _asset(f"{kind}.js"),
    }
    before, *others = _asset("page.html").split("{{")
    made = [before]
    for other in others:  # not one after the other, for what is put in may itself have braces
        name, _, after = other.partition("}}")
        made += [parts[name], after]
    return "".join(made)


def packed(text: str) -> str:
    """Compressed, in letters that HTML leaves alone; always the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def numbers(values: np.ndarray) -> str:
    """The bytes of an array, as the script reads them: little-endian."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def new_plot(x: str, y: str, **more: Any) -> "figure":
    """An empty plot as wide as its place, without colours of its own: the script gives it light or dark ones."""
    from bokeh.plotting import figure

    made = figure(
        height=400,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_drag="box_zoom",
        x_axis_label=x,
        y_axis_label=y,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        **more,
    )
    made.toolbar.logo = None
    return made


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
