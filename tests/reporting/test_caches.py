"""The figure and the table of caches."""

import csv

import pytest

from branchynet.reporting.caches import CachePoint, CacheStudy, caches_figure, caches_page, write_caches
from branchynet.runtime.caches import Cache


def study(counted=True):
    misses = [{"L1 data": 3000.0, "L2": 500.0}, {"L1 data": 1000.0, "L2": 20.0}] if counted else [{}, {}]
    points = [
        CachePoint(0.0, (0.0, 1.0), 900.0, 2048.0 * 1024, misses[0]),
        CachePoint(2.0, (1.0, 0.0), 100.0, 256.0 * 1024, misses[1]),
    ]
    sizes = [Cache(1, 2**15, 8, 64), Cache(2, 2**19, 8, 64), Cache(3, 2**25, 16, 64)]
    how, note = ("simulated", "perf hides") if counted else ("", "nothing is installed")
    return CacheStudy("toy", 100, points, sizes, how, note)


def test_the_table_says_who_counted(tmp_path):
    write_caches(tmp_path, study())
    rows = list(csv.DictReader((tmp_path / "caches.csv").read_text().splitlines()))
    assert [float(row["misses_L2"]) for row in rows] == [500, 20]
    assert [float(row["touched_bytes"]) for row in rows] == [2**21, 2**18]
    page = (tmp_path / "caches.md").read_text()
    assert "| 0 | 0.0, 100.0 | 900 | 2,048 | 3,000 | 500 |" in page
    assert "Misses are simulated (perf hides)." in page and "L2 512 KiB" in page
    assert (tmp_path / "figures" / "caches.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_count_the_model_alone():
    page = caches_page(study(counted=False))
    assert "No misses were counted (nothing is installed)." in page and "misses of" not in page
    assert "no misses were counted" in caches_figure(study(counted=False)).get_suptitle()
    assert len(caches_figure(study(counted=False)).axes) == 2


def test_the_caches_that_are_near_are_drawn():
    *_, last = caches_figure(study()).axes
    assert [text.get_text() for text in last.texts] == ["L1", "L2"], "32 MiB would squeeze the curve"
    assert last.get_lines()[0].get_ydata() == pytest.approx([2048, 256])
