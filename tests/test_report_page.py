"""The page: in a real browser, and what it says of the run."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, browser
from ensembles import ensemble

from ai_models_mosaic.report.ensemble import canonical
from ai_models_mosaic.report.fields import Threshold
from ai_models_mosaic.report.page import Contents, Pace, compose
from ai_models_mosaic.report.words import UNTRAINED, cards_of, provenance

CONTENTS = Contents(
    dataset=canonical(ensemble()),
    names=("z500", "2t"),
    steps=(0, 1, 2),
    thresholds=(Threshold("2t", True, 273.15),),
    points=((52.5, 13.4, "Berlin <b>"),),
)

CARD = {
    "ai-models-mosaic": "0.1.0",
    "variant": "mini",
    "seed": 3,
    "members": [1, 2],
    "steps": 10,
    "written": "2020-01-02T13:00:00+00:00",
    "input": {"initial_time": "2020-01-02T12:00:00", "states": ["2020-01-01T12:00:00", "2020-01-02T12:00:00"], "source": "/home/me/in.grib"},
    "engine": "CPU (2 threads)",
    "precision": "float32",
    "weights": {"file": "/home/me/mini.safetensors", "sha256": "0123456789abcdef" * 4, "untrained": False, "licence": "Apache-2.0"},
}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(compose(CONTENTS, [("Warning", UNTRAINED), ("Files", "</script><script>alert(1)</script>")]))
    return path


def test_everything_is_in_the_page(page):
    text = page.read_text()

    addresses = re.findall(r"(?:src|href)=[\"']?([^\"' >]{1,20})", text)
    assert {address.partition(":")[0] if ":" in address else address[0] for address in addresses} == {"data", "#"}
    assert "default-src 'none'" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert [field["name"] for field in data["fields"]] == ["z500", "2t"]
    for field in data["fields"]:
        for view in ("mean", "spread", "members", "spaghetti"):
            assert len(field[view]["pictures"]) == 3
            assert all(each.startswith("data:image/png;base64,") for each in field[view]["pictures"])
    assert data["fields"][1]["probabilities"][0]["label"] == "2 m temperature below 0 °C"
    assert data["times"][1] == "+24 h, valid Fri 2020-01-03 12 UTC"
    assert data["members"] == [1, 2, 3, 4]


def test_fields_that_are_missing_are_told(tmp_path):
    dataset = ensemble()
    dataset["2t"][1] = np.nan
    dataset["2t"][:, 1] = np.nan
    dataset = canonical(dataset).assign_attrs({"mosaic_ensemble": 1, "missing_fields": 6})
    text = compose(replace(CONTENTS, dataset=dataset, names=("2t",)), [])

    assert (
        "<p class=warning>6 fields of members and lead times are missing: means, spreads and probabilities are of the "
        "members that have the field.</p>"
    ) in text


def test_names_are_text_and_nothing_else(page):
    text = page.read_text()

    assert "<b>" not in text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text


def test_without_scripts_there_are_drawings(page):
    described = re.findall(r'<img alt="(.*?)"', page.read_text())

    assert described == [
        "Mean and spread of z500",
        "Mean and spread of 2t",
        "Members of z500",
        "A contour of z500",
        "Probability of 2t",
        "Plumes at Berlin &lt;b&gt;",
    ]
    assert "Not looked for: the grid&#x27;s points lie 10° apart, and a cyclone needs 1.5° or less." in page.read_text()


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver: apt-get install chromium-driver")
def test_in_a_browser(page, tmp_path):
    with browser(tmp_path / "profile") as window:
        window.size(1400, 1000)
        window.requests()
        window.open(page)

        source = "return [...document.querySelectorAll('#left img, #right img, #stamps img')].map(each => each.src)"
        ready = "return [...document.images].every(each => each.complete && (each.naturalWidth || !each.src))"
        first = window.run(source)
        window.run("document.getElementById('lead').stepUp(); document.getElementById('lead').oninput()")
        later = window.run(source)
        assert later != first
        assert window.run("return document.getElementById('time').textContent") == "+48 h, valid Sat 2020-01-04 12 UTC"

        window.run("document.querySelectorAll('#fields button')[1].click()")
        assert window.run("return document.getElementById('left-title').textContent") == "2 m temperature, mean"
        assert window.run(source) != later
        for button, title in (
            ("probability < 0 °C", "Probability of 2 m temperature below 0 °C"),
            ("spaghetti", "2 m temperature, contour of 0 °C"),
            ("spread", "2 m temperature, spread"),
        ):
            before = window.picture()
            window.run(
                "[...document.querySelectorAll('#views button')].find(b => b.textContent == arguments[0]).click()",
                button,
            )
            assert window.run("return document.getElementById('right-title').textContent") == title
            assert window.picture() != before or button == "spread"
        window.run("document.querySelectorAll('#stamps button')[2].click()")
        assert window.run("return document.getElementById('right-title').textContent") == "2 m temperature, member 3"
        assert window.run("return document.querySelector('#stamps [aria-pressed=true] .label').textContent") == "3"

        deadline = time.monotonic() + 20
        while not window.run(ready) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert window.run(ready)
        window.size(390, 844, phone=True)
        assert window.run("return document.documentElement.scrollWidth") <= 390
        assert window.pdf().startswith(b"%PDF")
        assert window.complaints() == []
        assert {address.partition(":")[0] for address in window.requests()} <= {"file", "data"}

        window.tell("Emulation.setScriptExecutionDisabled", value=True)
        window.size(1400, 1000)
        window.open(page)
        assert window.picture() != before


def test_a_run_is_told_in_words():
    assert provenance([CARD], ["out/e.grib"]) == [
        ("Files", "e.grib"),
        ("Model", "Mosaic, variant mini, run by ai-models-mosaic 0.1.0"),
        ("Start", "2020-01-02 12:00 UTC, from states of 2020-01-01 12:00 UTC and 2020-01-02 12:00 UTC, out of in.grib"),
        ("Members", "2 members, seed 3, 10 steps of the model"),
        ("Machine", "CPU (2 threads), in float32"),
        ("Weights", "mini.safetensors, SHA-256 0123456789abcdef…, licence Apache-2.0"),
        ("Written", "2020-01-02T13:00:00+00:00"),
    ]
    untrained = {**CARD, "weights": {"untrained": True}}
    assert ("Warning", UNTRAINED) in provenance([untrained], ["e.grib"])


def test_without_a_record_that_is_said(tmp_path):
    (tmp_path / "e.grib").write_bytes(b"")
    (tmp_path / "e.grib.provenance.json").write_text("[1")

    assert cards_of([str(tmp_path / "e.grib")]) == []
    assert provenance([], ["e.grib"])[1] == (
        "Record",
        "There is none beside the files (NAME.provenance.json), so who made them is not known here.",
    )


def test_a_record_beside_the_file_is_found(tmp_path):
    (tmp_path / "e.grib").write_bytes(b"")
    (tmp_path / "e.grib.provenance.json").write_text(json.dumps(CARD))

    assert cards_of([str(tmp_path / "e.grib")]) == [CARD]


def test_progress_is_shown_while_drawing(caplog):
    now = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    pace = Pace(8, lambda: next(now))
    with caplog.at_level("INFO"):
        for _ in range(4):
            pace.advance("maps of z500")

    assert caplog.messages == [
        "Drew maps of z500: 2 of 8, ETA 18 s",
        "Drew maps of z500: 4 of 8, ETA 12 s",
    ]
