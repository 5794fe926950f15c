"""What to do about an error of the operating system: each cause has advice of its own, in one table."""

from __future__ import annotations

import errno

OTHER = "see that this place is there and can be written"
_ROOM = "make room on the disk"
_NAME = "name another place"
# The number of the error -> what its user can do.
ADVICE: dict[int, str] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: "remove files of yours, or ask for a larger quota: yours is used up",
    errno.EFBIG: f"{_ROOM}, or raise the limit on the size of a file (ulimit -f)",
    errno.EACCES: f"you may not do this there; {_NAME}, or change its permissions",
    errno.EPERM: f"you may not do this there; {_NAME}, or change its permissions",
    errno.EROFS: f"that disk can be read only; {_NAME}",
    errno.ENOTDIR: f"a part of this path is a file where a folder is needed; {_NAME}",
    errno.EISDIR: f"this is a folder where a file is needed; {_NAME}",
    errno.EEXIST: f"something of that name is there already; {_NAME}, or remove it",
    errno.ENOTEMPTY: f"that folder is not empty; {_NAME}, or remove it",
    errno.ENOENT: "there is no such place; check how it is written",
    errno.ENAMETOOLONG: "the name is too long for this disk; shorten it",
    errno.ELOOP: "links there lead round in a circle; remove one of them",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n), or use fewer workers",
    errno.ENFILE: "too many files are open on this machine; end other programs",
    errno.EBUSY: "another program uses it; end that one",
    errno.ETXTBSY: "another program uses it; end that one",
    errno.EXDEV: f"that is another disk; {_NAME}",
    errno.EINVAL: f"this disk does not take such a name or such an access; {_NAME}",
    errno.EIO: "the disk reports an error; check it (dmesg), and take another",
    errno.ESTALE: "the network disk has lost it; mount it again",
    errno.ENODEV: "the disk is gone; attach it again",
    errno.ENXIO: "the disk is gone; attach it again",
    errno.ENOMEM: "the machine has no memory left; end other programs, or use fewer workers",
}


def advice_for(error: OSError) -> str:
    """What the user can do about an error of the system, as the end of a sentence."""
    return OTHER if error.errno is None else ADVICE.get(error.errno, OTHER)


def again(error: OSError) -> str:
    """The advice, and that the same command goes on afterwards."""
    return f"{advice_for(error)}, then give the same command again"


def explained(error: OSError) -> str:
    """An error of the system in one line: the place, the cause and the advice; ours say all that themselves."""
    if error.errno is None or error.strerror is None:
        return str(error)
    if error.errno not in ADVICE and error.filename is None:
        return str(error)  # such as of a connection
    places = [str(name) for name in (error.filename, error.filename2) if name is not None]
    place = f"{' -> '.join(places)}: " if places else ""
    return f"{place}{error.strerror[:1].lower()}{error.strerror[1:]}; {advice_for(error)}"
