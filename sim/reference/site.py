"""The pages of the documentation site, gathered into one folder, and a look at what was built of them.

Pages lie where a reader of the checkout looks for them: guides in ``docs/``, and some elsewhere. A site builder takes
one folder, so that the pages from elsewhere are put beside the guides, and links between the two are written anew. What
a link shows of the checkout besides, such as a notebook, is put into ``files/``.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

# Pages outside of docs/ -> their names in the site.
OTHER_PAGES = {
    "README.md": "about.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "examples/digits/README.md": "digits.md",
}
_LINK = re.compile(r"(?<=\]\()[^)\s#:]+(?=[)#])")
# What a browser fetches by itself when it opens a page; a link that a reader may follow is none of it.
_LOADS = re.compile(
    r"""<(?:script|img|iframe|source|audio|video|embed)\b[^>]*?\ssrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon|manifest))[^>]*?\shref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|@import\s+["']?(?:https?:)?//[^"'\s;]+|url\(["']?(?:https?:)?//[^"')\s]+"""
)


def gather(checkout: Path, folder: Path) -> None:
    """Put every page and picture into a folder, which is emptied before.

    Args:
        checkout: the checkout.
        folder: the folder that a site builder reads.

    Raises:
        ValueError: a link leads nowhere.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkout / "docs", folder)
    sources = {page: checkout / "docs" / page.relative_to(folder) for page in sorted(folder.rglob("*.md"))}
    for name, new in OTHER_PAGES.items():
        sources[folder / new] = checkout / name
    for page, source in sources.items():

        def moved(link: str, page: Path = page, source: Path = source) -> str:
            target = Path(os.path.normpath(source.parent / link))
            if not target.exists():
                raise ValueError(f"{source}: {link} leads nowhere; mend the link")
            return os.path.relpath(_place_of(target.relative_to(checkout), checkout, folder), page.parent)

        page.write_text(_relinked(source.read_text(), moved))


def outside_loads(folder: Path) -> list[str]:
    """What pages and styles of a built site would fetch from elsewhere, as ``file: what``; a site of ours has none."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".html", ".css"))
    return [f"{path.relative_to(folder)}: {found}" for path in files for found in _LOADS.findall(path.read_text())]


def _place_of(target: Path, checkout: Path, folder: Path) -> Path:
    """Where a file of the checkout, named relative to it, is in the site; one that is no page is copied there."""
    if target.as_posix() in OTHER_PAGES:
        return folder / OTHER_PAGES[target.as_posix()]
    if target.parts[0] == "docs":
        return folder / target.relative_to("docs")
    place = folder / "files" / target
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkout / target, place)
    return place


def _relinked(text: str, moved: Callable[[str], str]) -> str:
    """A page whose links to files are as ``moved`` says; code stays as it is."""
    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.DOTALL)
    return "".join(part if part.startswith("`") else _LINK.sub(lambda found: moved(found[0]), part) for part in parts)


def main() -> None:
    """Gather the pages (``gather FOLDER``), or look at a built site (``check FOLDER``)."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("gather", "check"):
        sys.exit("error: give gather or check, and a folder")
    folder = Path(sys.argv[2]).resolve()
    if sys.argv[1] == "gather":
        try:
            gather(Path(__file__).resolve().parents[2], folder)
        except ValueError as error:
            sys.exit(f"error: {error}")
    elif found := outside_loads(folder):
        sys.exit("error: the site loads from elsewhere: " + "; ".join(found))


if __name__ == "__main__":
    main()
