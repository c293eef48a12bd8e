"""Follow every link within the built site, and list those that lead out: ``python docs/links.py FOLDER``.

Anchors are looked for, too. Links that lead out are not fetched: they are in ``links.txt`` beside the site's folder.
Exits with 1 if one within leads nowhere.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit


class Page(HTMLParser):
    """What a page links to, and where links can lead within it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collect what matters of a tag."""
        for name, value in attributes:
            if value and name in ("href", "src"):
                self.links.add(value)
            elif value and (name == "id" or (name == "name" and tag == "a")):
                self.anchors.add(value)


def main(site: Path) -> int:
    """Check a site; returns the exit status."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    outside, broken = set(), set()
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlsplit(link).scheme or link.startswith("//"):
                outside.add(address)
                continue
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            if not target.exists() or (anchor and target in pages and unquote(anchor) not in pages[target].anchors):
                broken.add(f"{path.relative_to(site.resolve())}: {link}")
    outside = {link for link in outside if not link.startswith("data:")}
    (site.parent / "links.txt").write_text("".join(f"{link}\n" for link in sorted(outside)), encoding="utf-8")
    print(f"{len(pages)} pages; links that lead nowhere: {len(broken)}; that lead out: {len(outside)}, not fetched")
    for line in sorted(broken):
        print(f"  {line}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
