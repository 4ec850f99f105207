"""The files in which processes that answer /metrics as one keep their counts.

Each process has its own, named after its pid. When it is dead, its counters and histograms are added to what
all the dead have counted, so that nothing goes down, and its gauges are forgotten; so there are as many files
as processes alive, however many have died.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict

_KINDS = ("counter", "histogram")
_MERGED = "merged"
"""In place of the pid, what the dead have counted."""
_OF_CAMPAIGN = '{"campaign": "'
_dicts: Any = MmapedDict  # it has no types


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """A block in which nobody else merges or reads."""
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given up with the process, if it dies
        yield


def tidy(directory: Path) -> None:
    """Leave as many files as there are processes alive."""
    with locked(directory):
        bury(directory)


def added_up(directory: Path, hidden: frozenset[str]) -> list[str]:
    """Files with what all processes tell, without the series of `hidden` campaigns. In a block of `locked`.

    The library reads series one by one, and takes its time. So what processes have in common is added
    up before.
    """
    # One that a process is just about to begin has nothing in it.
    files = [file for file in directory.glob("*.db") if file.stat().st_size]
    found = [str(file) for file in files if file.name.startswith("gauge_")]
    for kind in _KINDS:
        made = directory / f"{kind}_scrape.new"
        _write(made, _sum((file for file in files if file.name.startswith(f"{kind}_")), hidden))
        found.append(str(made))
    return found


def bury(directory: Path) -> None:
    """Do what is to be done for processes that are dead. In a block of `locked`."""
    dead = [file for file in directory.glob("*.db") if _is_dead(file)]
    for kind in _KINDS:
        _finish(directory, kind)
        files = sorted(file for file in dead if file.name.startswith(f"{kind}_"))
        if files:
            _merge(directory, kind, files)
    for file in dead:
        file.unlink(missing_ok=True)


def _is_dead(file: Path) -> bool:
    try:
        os.kill(int(file.stem.rpartition("_")[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        pass
    return False


def _merge(directory: Path, kind: str, dead: Sequence[Path]) -> None:
    """Add what they have counted to what others had. Who dies over it leaves it undone, or to be finished."""
    merged, made = directory / f"{kind}_{_MERGED}.db", directory / f"{kind}_{_MERGED}.new"
    _write(made, _sum(file for file in (*dead, merged) if file.exists() and file.stat().st_size))
    journal = directory / f"{kind}_{_MERGED}.json"
    journal.write_text(json.dumps([file.name for file in dead]))
    made.rename(merged)  # from here on the dead are in it
    _finish(directory, kind)


def _sum(files: Iterable[Path], hidden: frozenset[str] = frozenset()) -> dict[str, float]:
    """By series, as the library writes it."""
    counts: dict[str, float] = defaultdict(float)
    for file in files:
        for key, value, _, _ in _dicts.read_all_values_from_file(str(file)):
            counts[key] += value
    return {key: count for key, count in counts.items() if _campaign(key) not in hidden} if hidden else counts


def _campaign(key: str) -> str:
    """Whose series it is; nobody's, if it is of no campaign."""
    _, found, rest = key.partition(_OF_CAMPAIGN)
    return rest.partition('"')[0] if found else ""


def _write(file: Path, counts: Mapping[str, float]) -> None:
    file.unlink(missing_ok=True)
    written = _dicts(str(file))
    for key, count in counts.items():
        written.write_value(key, count, 0.0)
    written.close()


def _finish(directory: Path, kind: str) -> None:
    """Remove what was merged, by us or by one who died over it."""
    journal = directory / f"{kind}_{_MERGED}.json"
    if not journal.exists():
        return
    if not (directory / f"{kind}_{_MERGED}.new").exists():
        for name in json.loads(journal.read_text()):
            (directory / name).unlink(missing_ok=True)
    journal.unlink()
