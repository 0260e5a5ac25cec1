"""A page in one file: what is put in comes out, nothing else is asked for, and without Bokeh it is told."""

import base64
import gzip
import json
import re

import numpy as np
import pytest

from branchynet.reporting import page as module
from branchynet.reporting.page import ASSETS, new_plot, numbers, packed, page, why_no_page


def part(html, name):
    found = re.search(rf'<script type="application/octet-stream" id="{name}">([^<]*)</script>', html)
    return gzip.decompress(base64.b64decode(found[1])).decode()


@pytest.fixture(scope="module")
def html():
    return page("run", "a <run> {{data}}", {"name": "</script> {{title}} µ"}, {"plot": new_plot("x", "y")})


def test_what_is_put_in_comes_out(html):
    assert "<title>a &lt;run&gt; {{data}}</title>" in html
    data = json.loads(part(html, "data"))
    assert data["name"] == "</script> {{title}} µ"
    assert [item["target_id"] for item in data["plots"]] == ["plot"]
    # The library with its licence's notice.
    library = part(html, "library")
    assert len(library) > 500_000 and "Copyright" in library[:5000]
    assert html.count("</script>") == 3


def test_it_asks_for_nothing(html):
    """The library may name addresses, which it does not use; the rest of the page names none."""
    assert not re.search(r"(src|href)=[\"']?(https?:)?//|@import|url\((?!\"\$)", html)


def test_the_same_page_twice_is_the_same(html):
    assert packed("text") == packed("text")


def test_numbers_are_little_endian():
    values = np.array([1.5, -2.0], dtype=">f4")
    assert np.frombuffer(base64.b64decode(numbers(values)), "<f4").tolist() == [1.5, -2.0]


def test_without_bokeh_it_is_told(monkeypatch):
    assert why_no_page() == ""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert why_no_page() == "no report.html is written: it needs Bokeh, `pip install bokeh`"


def test_every_element_that_the_scripts_ask_for_is_there():
    for kind in (path.stem for path in ASSETS.glob("*.js") if path.stem != "page"):
        script = (ASSETS / "page.js").read_text() + (ASSETS / f"{kind}.js").read_text()
        body = (ASSETS / "page.html").read_text() + (ASSETS / f"{kind}.html").read_text()
        asked = set(re.findall(r'element\("([\w-]+)"\)', script))
        assert len(asked) > 8 and not asked - set(re.findall(r'id="([\w-]+)"', body)), kind
