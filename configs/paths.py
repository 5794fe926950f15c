"""Paths as people write them: ``~`` and environment variables stand for what they mean in a shell."""

from __future__ import annotations

import os
import re
from pathlib import Path


def expanded(text: str | Path) -> Path:
    """The path that a person means, wherever it is written: in a YAML, after ``--set`` or as an option.

    A shell expands neither ``--out=~/runs`` nor what stands in a YAML. ``~`` at the beginning is the home of the user,
    ``~name`` that of another one, and ``$NAME`` or ``${NAME}`` an environment variable; a path that exists as it
    stands is taken as it stands.

    Raises:
        ValueError: there is no such variable or no such user.

    Example:
        >>> import os
        >>> os.environ["SOFTBEAM_EXAMPLE"] = "/data"
        >>> expanded("$SOFTBEAM_EXAMPLE/scenario9").as_posix()
        '/data/scenario9'
    """
    written = str(text)
    if not (written.startswith("~") or "$" in written) or os.path.lexists(written):
        return Path(written)
    path = os.path.expandvars(written)
    if left := re.search(r"\$(\w+|\{[^}]*\})", path):
        raise ValueError(
            f"{written}: the environment variable {left[1].strip('{}')} is not set; set it or write the path"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = path.split("/")[0]
        raise ValueError(f"{written}: there is no home of {user}; write the path") from None
