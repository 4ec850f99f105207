"""How many connections the system lets this process have: each is an open file."""

from __future__ import annotations

import resource
from contextlib import suppress

_WANTED = 65_536


def open_files_max() -> int:
    """The limit of open files, raised as far as we need it and may."""
    limit, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if allowed == resource.RLIM_INFINITY else min(_WANTED, allowed)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        with suppress(ValueError, OSError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, allowed))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _WANTED if limit == resource.RLIM_INFINITY else limit
