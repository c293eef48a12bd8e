"""What holds the documentation together, as far as it can be told without building it; ``make docs`` does the rest."""

import importlib.util
import re
import subprocess
import sys

import pytest
from running import ROOT

from ai_models_mosaic import cli

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/*.md", "weights/*.md")
    for path in ROOT.glob(pattern)
)
CONTENTS = ("docs/index.md", "docs/howto.md", "docs/explanation.md", "docs/reference.md")
LINK = re.compile(r"\]\(([^)\s]+)\)")
LISTED = re.compile(r"^- \[[^\]]+\]\(([^)#\s]+)", re.MULTILINE)


def text_of(page):
    """A page without its code."""
    return re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """Those that GitHub and the site make of headings."""
    headings = re.findall(r"^#+ (.*)$", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def load(path):
    """A file of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(page):
    for link in LINK.findall(text_of(page)):
        name, _, anchor = link.partition("#")
        if ":" not in name:
            path = (ROOT / page).parent / name if name else ROOT / page
            assert path.exists(), link
            assert not anchor or anchor in anchors(path), link


def test_every_page_is_in_the_contents_once():
    listed = [
        ((ROOT / page).parent / link).resolve().relative_to(ROOT).as_posix()
        for page in CONTENTS
        for link in LISTED.findall(text_of(page))
        if link.endswith(".md")
    ]
    assert sorted(listed) == sorted({*PAGES} - {"README.md", "docs/index.md"})


def test_every_command_is_in_the_reference():
    reference = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    (commands,) = (action.choices for action in cli.parser()._actions if action.dest == "==SUPPRESS==")
    steps = {"world": ("environment", "sample", "simulate")}
    for command in commands:
        for step in steps.get(command, ("",)):
            name = f"{command} {step}".strip()
            assert f"\n## {name}\n" in reference, name
            assert f":func: {re.sub('[ -]', '_', name)}\n:prog: ai-models-mosaic {name}\n" in reference, name


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "html"
    folder.mkdir()
    (folder / "a.html").write_text('<p id="here"><a href="b.html#there">b</a><a href="https://example.org/x#y">out</a>')
    (folder / "b.html").write_text('<a name="there" href="a.html#here">a</a><img src="data:image/png;base64,AA">')
    return folder


def test_links_of_a_site_that_lead_out_are_listed_and_not_followed(site, capsys):
    assert load(ROOT / "docs" / "links.py").main(site) == 0
    assert capsys.readouterr().out == "2 pages; links that lead nowhere: 0; that lead out: 1, not fetched\n"
    assert (site.parent / "links.txt").read_text() == "https://example.org/x\n"


def test_links_of_a_site_that_lead_nowhere_are_named(site, capsys):
    (site / "b.html").write_text('<a href="a.html#gone">a</a><img src="c.png">')
    assert load(ROOT / "docs" / "links.py").main(site) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  a.html: b.html#there",
        "  b.html: a.html#gone",
        "  b.html: c.png",
    ]


def test_a_page_shows_what_its_commands_print_and_make_and_one_that_fails_ends_the_build(tmp_path):
    pytest.importorskip("myst_nb", reason="needs the extra docs")
    source, site = tmp_path / "source", tmp_path / "html"
    (source / "examples").mkdir(parents=True)
    (source / "conf.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'docs' / 'extensions')!r})\n"
        "extensions = ['myst_nb', 'executed']; executed_pages = ['index']"
    )
    words = [sys.executable, "-m", "sphinx", "-W", "-q", "-d", tmp_path / "doctrees", source, site]
    page = (
        "# A\n\n```sh\necho printed | tee made.html\n```\n\n```{page} made.html Open it\nls\n```\n\n"
        f"```{{picture}} map.png A map\ncp {ROOT}/docs/pictures/report-map.png map.png\necho unseen\n```\n\n"
    )

    (source / "index.md").write_text(page + "<!-- not run: it fails -->\n```sh\nfalse\n```\n")
    subprocess.run(words, check=True)
    text = (site / "index.html").read_text()
    assert re.search("<pre>(<span></span>)?printed\n</pre>", text)
    assert '<img alt="A map" src="_images/map.png"' in text
    assert "\nunseen\n" not in text
    assert 'href="made/index/made.html">Open it</a>' in text
    assert (site / "made" / "index" / "made.html").read_text() == "printed\n"

    (source / "index.md").write_text(page + "\n```sh\nls absent\n```\n")
    refused = subprocess.run(words, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "status 2 of\nls absent\n" in refused.stderr
