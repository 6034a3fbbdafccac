"""Checks a built site: links and anchors inside it, and that no asset is foreign.

python docs/tools/check_links.py site
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse

ASSETS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(html.parser.HTMLParser):
    """Anchors, links and assets of a page."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.assets = {""}, set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given.get("id"), given.get("name")} - {None}
        if tag == "a" and given.get("href"):
            self.links.add(given["href"])
        if given.get(ASSETS.get(tag)):
            self.assets.add(given[ASSETS[tag]])


def is_foreign(address):
    return bool(urllib.parse.urlsplit(address).netloc)


def target_of(site, path, address):
    """The file that an address on a page means, and its anchor."""
    parts = urllib.parse.urlsplit(address)
    name = urllib.parse.unquote(parts.path)
    file = site / name.lstrip("/") if name.startswith("/") else path.parent / name
    file = path if not name else file / "index.html" if file.is_dir() else file
    return file.resolve(), urllib.parse.unquote(parts.fragment)


def problems(site):
    site = site.resolve()
    pages = {path: Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for address in sorted(page.links | page.assets):
            if is_foreign(address):
                if address in page.assets:
                    yield path, f"foreign asset {address}"
                continue
            if address.startswith(("mailto:", "data:")):
                continue
            file, anchor = target_of(site, path, address)
            if not file.is_file():
                yield path, f"dead link {address}"
            elif file in pages and anchor not in pages[file].anchors:
                yield path, f"no anchor {address}"
    for path in site.rglob("*.css"):
        for address in re.findall(
            r"url\(\s*[\"']?([^)\"']+)|@import\s+[\"']([^\"']+)", path.read_text()
        ):
            address = "".join(address)
            if is_foreign(address):
                yield path, f"foreign asset {address}"
            elif (
                not address.startswith("data:") and not target_of(site, path, address)[0].is_file()
            ):
                yield path, f"dead link {address}"


def main():
    site = pathlib.Path(sys.argv[1])
    found = [f"{path.relative_to(site.resolve())}: {problem}" for path, problem in problems(site)]
    if not any(site.rglob("*.html")):
        found.append(f"no pages in {site}")
    print(*found, f"{len(found)} problems", sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
