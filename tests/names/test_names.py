"""One vocabulary: Lua headers, file names, outcomes, SQL and documentation say the same words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.problems import CODES
from reservation import redis_store
from reservation.ids import ReservationId
from reservation.kernel import INDEX_IDS_MAX, Claim, Gate, Move
from reservation.keys import CampaignKeys, OfferKeys, OrderKeys, ShardKeys, offer_keys, order_keys
from reservation.outcomes import (
    ConfigureOutcome,
    GrantOutcome,
    OrderOutcome,
    Outcome,
    PlaceOutcome,
    RankOutcome,
)
from reservation.record import Record

ROOT = Path(__file__).parents[2]
LUA = sorted((ROOT / "reservation" / "lua").glob("*.lua"))
LUA_INCLUDED = sorted((ROOT / "reservation" / "lua" / "include").glob("*.lua"))
OUTCOMES = {
    "move": [Outcome],
    "configure": [ConfigureOutcome],
    "place": [Outcome, PlaceOutcome],
    "rank": [RankOutcome],
    "grant": [GrantOutcome],
    "order": [OrderOutcome],
}
# Said by the caller through its arguments, so the script has no literal of theirs.
PASSED_IN = {"first_refusal", "last_refusal", "opens_refusal", "closes_refusal"}


def section(source: str, name: str) -> str:
    """A section of a script's header, without its comment signs."""
    header = source[: source.index("\n\n")]
    match = re.search(rf"^-- {name}: (.*?)(?=^--$|^-- [A-Z]\w*:|\Z)", header, re.MULTILINE | re.DOTALL)
    assert match, f"the header has no {name}"
    return match[1].replace("\n--", " ")


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_a_scripts_header_is_true(path: Path) -> None:
    source = path.read_text()
    assert source.startswith("--- ")
    for name in ("Guarantee", "KEYS", "ARGV", "Reply"):
        assert section(source, name).strip()
    keys = section(source, "KEYS").split(", which")[0].split()
    found = order_keys("o") if path.stem == "order" else offer_keys("c", "s")
    named = [getattr(found if hasattr(found, name) else found.shard, name) for name in keys]
    assert [*getattr(found, f"for_{path.stem}")] == named
    assert {int(n) for n in re.findall(r"KEYS\[(\d+)\]", source)} == set(range(1, len(keys) + 1))
    header = source[: source.index("\n\n")]
    listed = set(
        re.findall(r"\b[a-z_]+\b", header.split("Outcomes, in order of precedence:")[1].split("-- Reply")[0])
    )
    enum = {str(member) for outcomes in OUTCOMES[path.stem] for member in outcomes}
    said = set(re.findall(r"return \{ '(\w+)'", source))
    for included in re.findall(r"^ *--@include (\w+)$", source, re.MULTILINE):
        text = (ROOT / "reservation" / "lua" / "include" / f"{included}.lua").read_text()
        said |= set(re.findall(r"return '(\w+)'", text))
    assert said <= enum, "an outcome that the enum does not have"
    assert said <= listed, "an outcome that the header does not list"
    assert (listed & enum) | PASSED_IN >= said


def read_arguments(source: str) -> set[int]:
    """The numbers of the arguments that a script reads, itself or through lua/include/campaign.lua."""
    at = int(re.search(r"refused_by_campaign\(KEYS\[1\], now, (\d+)", source)[1])  # type: ignore[index]
    included = (ROOT / "reservation" / "lua" / "include" / "campaign.lua").read_text()
    further = {0, *(int(n) for n in re.findall(r"ARGV\[at \+ (\d+)\]", included))}
    return {int(n) for n in re.findall(r"ARGV\[(\d+)\]", source)} | {at + n for n in further}


def test_moves_arguments_are_where_the_script_reads_them() -> None:
    source = (ROOT / "reservation" / "lua" / "move.lua").read_text()
    names = re.findall(r"[a-z_]+", section(source, "ARGV").split("claims...")[0])
    first_claim = re.search(r"for i = (\d+), #ARGV, 4", source)
    assert first_claim
    assert int(first_claim[1]) == len(names) + 1
    assert read_arguments(source) == set(range(1, len(names) + 1)), "every argument is used"
    move = Move(
        ReservationId("c", "d"), 7, "user", "sku", 3, "state", (Claim("n", 1, None, Outcome.SOLD_OUT),),
        "type", b"facts", b"data", 11, 12, Gate(1, 2), 9, "fingerprint", "first_refusal", "last_refusal",
        True, "queued", True,
    )  # fmt: skip
    given = dict(zip(names, redis_store.move_arguments(move), strict=False))
    for name in ("user", "sku", "state", "fingerprint", "first_refusal", "last_refusal", "type", "queued"):
        assert given[name] == name
    assert (given["heeds_status"], given["serves"]) == (1, 1)
    assert (given["version"], given["quantity"], given["revision"]) == (7, 3, 9)
    assert (given["hold_ms"], given["deadline"], given["opens_at"], given["closes_at"]) == (11, 12, 1, 2)


def test_places_arguments_are_where_the_script_reads_them() -> None:
    source = (ROOT / "reservation" / "lua" / "place.lua").read_text()
    names = re.findall(r"[a-z_]+", section(source, "ARGV").split("claims...")[0])
    first_claim = re.search(r"for i = (\d+), #ARGV, 4", source)
    assert first_claim
    assert int(first_claim[1]) == len(names) + 1
    assert read_arguments(source) == set(range(1, len(names) + 1))
    move = Move(
        ReservationId("campaign", "d"), 0, "user", "sku", 3, "state", (), "type", b"", b"", 0, 0,
        Gate(1, 2), 9, "", "first_refusal", "last_refusal", True, "queued",
    )  # fmt: skip
    given = dict(zip(names, redis_store.place_arguments(move, b"details"), strict=True))
    for name in ("campaign", "user", "sku", "first_refusal", "last_refusal", "queued"):
        assert given[name] == name
    assert (given["quantity"], given["revision"], given["details"]) == (3, 9, b"details")


def test_the_record_has_one_order() -> None:
    source = (ROOT / "reservation" / "lua" / "include" / "record.lua").read_text()
    places: dict[str, int] = {}
    for names, numbers in re.findall(r"^local ([A-Z_, ]+) = ([\d, ]+)$", source, re.MULTILINE):
        if "," in names:
            places |= zip(names.split(", "), map(int, numbers.split(", ")), strict=True)
    assert [name.lower() for name, _ in sorted(places.items(), key=lambda item: item[1])] == list(
        Record._fields
    )
    index = (ROOT / "reservation" / "lua" / "include" / "index.lua").read_text()
    assert f"INDEX_IDS_MAX = {INDEX_IDS_MAX}" in index


def test_every_refusal_has_a_status_and_a_heading() -> None:
    internal = {Outcome.REPLAYED, Outcome.CONFLICT, Outcome.STALE, Outcome.MOVED}
    assert {str(outcome) for outcome in Outcome if outcome not in internal} <= CODES.keys()
    text = (ROOT / "docs" / "problems.md").read_text()
    documented = {
        name: int(status) for name, status in re.findall(r"^## (\w+)\n(\d{3})\.", text, re.MULTILINE)
    }
    assert documented == {code: status for code, (status, _) in CODES.items()}


def test_every_statement_says_what_it_does_and_is_used() -> None:
    code = "".join(path.read_text() for path in (ROOT / "settlement").rglob("*.py"))
    for path in sorted((ROOT / "settlement" / "sql").glob("*.sql")):
        assert path.read_text().startswith("-- "), path
        assert f'"{path.stem}"' in code, path


def test_keys_are_named_after_what_they_hold() -> None:
    for keys in (CampaignKeys, OfferKeys, OrderKeys, ShardKeys):
        for name, value in vars(keys).items():
            if not name.startswith("_") and hasattr(value, "func"):
                assert value.func.__doc__, name


def test_nothing_names_a_machine_or_a_registry() -> None:
    forbidden = re.compile(
        "|".join(("/wo" + "rk/", "py" + "pi\\.org", "python" + "hosted", "registry\\.np" + "mjs"))
    )
    skipped = {".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__", ".hypothesis"}
    for path in ROOT.rglob("*"):
        if path.is_file() and not skipped & set(path.relative_to(ROOT).parts) and path.stat().st_size < 2**20:
            try:
                text = path.read_text("utf-8")
            except UnicodeDecodeError:
                continue
            assert not forbidden.search(text), path
