"""How the book's server is reached: of several the one that takes writes, and none is waited for too long."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo

CONNECT_SECONDS_MAX = 5
HOST_SECONDS_MAX = 2
"""For each of several hosts: the next may be the right one."""
_SILENCE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""A server that went without a word is noticed within some 10 s. (Seconds, times, and ms.)"""


def complete(dsn: str) -> str:
    """The DSN, with what it leaves open."""
    said = conninfo_to_dict(dsn)
    several = "," in str(said.get("host") or said.get("hostaddr") or "")
    wanted: dict[str, str | int] = {
        "connect_timeout": HOST_SECONDS_MAX if several else CONNECT_SECONDS_MAX,
        **_SILENCE,
    }
    if several:
        wanted["target_session_attrs"] = "read-write"
    return make_conninfo(dsn, **{name: value for name, value in wanted.items() if name not in said})
