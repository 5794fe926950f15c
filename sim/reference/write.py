"""Writes the pages of the reference: ``python -m sim.reference.write docs/reference``."""

from __future__ import annotations

import sys
from pathlib import Path

from configs.files import write_whole
from sim.reference import commands, names, settings


def pages() -> dict[str, str]:
    """File -> text of each page."""
    return {"settings.md": settings.page(), "commands.md": commands.page(), "python.md": names.page()}


def main() -> None:
    """Write the pages into the folder that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("error: name the folder of the pages, such as docs/reference")
    for name, text in pages().items():
        write_whole(Path(sys.argv[1]) / name, text)


if __name__ == "__main__":
    main()
