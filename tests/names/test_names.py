"""One vocabulary: Lua headers, file names, outcomes, SQL and documentation say the same words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.problems import CODES
from reservation.ids import ReservationId
from reservation.kernel import INDEX_IDS_MAX, Claim, Gate, Move, Terms
from reservation.keys import CampaignKeys, OfferKeys, OrderKeys, ShardKeys, offer_keys, order_keys
from reservation.outcomes import (
    AdjustOutcome,
    ConfigureOutcome,
    GrantOutcome,
    OrderOutcome,
    Outcome,
    PlaceOutcome,
    RankOutcome,
    RestateOutcome,
    RestoreOutcome,
)
from reservation.record import MadeOn, Record, ShortRecord
from reservation.redis_store import move_arguments, place_arguments
from reservation.reserver import reserve_arguments

ROOT = Path(__file__).parents[2]
LUA = sorted((ROOT / "reservation" / "lua").glob("*.lua"))
OUTCOMES = {
    "reserve": [Outcome],
    "move": [Outcome],
    "configure": [ConfigureOutcome],
    "place": [Outcome, PlaceOutcome],
    "rank": [RankOutcome],
    "restate": [RestateOutcome],
    "restore": [RestoreOutcome],
    "grant": [GrantOutcome],
    "order": [OrderOutcome],
    "forget": [],
    "enter": [],
    "lift": [],
    "adjust": [AdjustOutcome],
    "snapshot": [],
}
HOLD_MS = 60_000


def section(source: str, name: str) -> str:
    """A section of a script's header, without its comment signs."""
    header = source[: source.index("\n\n")]
    match = re.search(rf"^-- {name}: (.*?)(?=^--$|^-- [A-Z]\w*:|\Z)", header, re.MULTILINE | re.DOTALL)
    assert match, f"the header has no {name}"
    return match[1].replace("\n--", " ")


def lua(name: str) -> str:
    return (ROOT / "reservation" / "lua" / f"{name}.lua").read_text()


def owner_of(script: str) -> OfferKeys | OrderKeys | ShardKeys:
    """The one that knows the keys of a script."""
    found = offer_keys("c", "s")
    return {"order": order_keys("o"), **dict.fromkeys(("forget", "enter", "lift"), found.shard)}.get(
        script, found
    )


def given_to(script: str) -> list[str]:
    """The KEYS that a script is given."""
    found = getattr(owner_of(script), f"for_{script}")
    return [*(found(HOLD_MS) if callable(found) else found)]


def key_called(script: str, name: str) -> str:
    found = owner_of(script)
    key = getattr(found if hasattr(found, name) else getattr(found, "shard", found), name)
    return str(key(HOLD_MS) if callable(key) else key)


def outcomes_said(source: str) -> set[str]:
    """The outcomes that a script has literals of: returned, or made the answer to one of many."""
    return set(re.findall(r"(?:[^=~]=|\{|\band|\bor) '([a-z_]+)'", source))


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_a_scripts_header_is_true(path: Path) -> None:
    source = path.read_text()
    assert source.startswith("--- ")
    for name in ("Guarantee", "KEYS", "ARGV", "Reply"):
        assert section(source, name).strip()
    keys = section(source, "KEYS").split()
    assert given_to(path.stem) == [key_called(path.stem, name) for name in keys]
    assert {int(n) for n in re.findall(r"KEYS\[(\d+)\]", source)} == set(range(1, len(keys) + 1))
    header, body = source.split("\n\n", 1)
    listed = set(
        re.findall(r"\b[a-z_]+\b", header.split("Outcomes, in order of precedence:")[1].split("-- Reply")[0])
    )
    enum = {str(member) for outcomes in OUTCOMES[path.stem] for member in outcomes}
    said = outcomes_said(body)
    for included in re.findall(r"^ *--@include (\w+)$", source, re.MULTILINE):
        said |= set(re.findall(r"return '(\w+)'", lua(f"include/{included}")))
    assert said <= enum, "an outcome that the enum does not have"
    assert said <= listed, "an outcome that the header does not list"
    assert listed & enum == said, "an outcome that the header lists and the script does not have"
    assert bool(enum) == bool(said)


def arguments(source: str) -> list[str]:
    """The names of the arguments that come before the claims."""
    return re.findall(r"[a-z_]+", section(source, "ARGV").split("claims...")[0])


def read_arguments(source: str) -> set[int]:
    """The numbers of the arguments that a script reads, itself or through lua/include/campaign.lua."""
    at = int(re.search(r"refused_by_campaign\(KEYS\[1\], KEYS\[\d+\], now, (\d+)", source)[1])  # type: ignore[index]
    further = {0, *(int(n) for n in re.findall(r"ARGV\[at \+ (\d+)\]", lua("include/campaign")))}
    return {int(n) for n in re.findall(r"ARGV\[(\d+)\]", source)} | {at + n for n in further}


@pytest.mark.parametrize("script", ["reserve", "move", "place"])
def test_every_argument_is_read_and_the_claims_come_after_the_last(script: str) -> None:
    source = lua(script)
    last = len(arguments(source))
    assert read_arguments(source) == set(range(1, last + 1))
    assert re.findall(r"read_claims\((\d+)", source) == [str(last + 1)]


CLAIM = Claim("counter", 1, None, Outcome.SOLD_OUT)
GIVEN_CLAIM = ["counter", 1, "", Outcome.SOLD_OUT]
TERMS = Terms(
    campaign="campaign",
    sku="sku",
    quantity=3,
    state="state",
    claims=(CLAIM, CLAIM),
    event="type",
    facts=b"facts",
    data=b"data",
    hold_ms=11,
    gate=Gate(1, 2),
    revision=9,
    fingerprint="fingerprint",
    first_refusal="first_refusal",
    last_refusal="last_refusal",
    queued="queued",
    serves=True,
)


def test_reserves_arguments_are_where_the_script_reads_them() -> None:
    source = lua("reserve")
    names, packed = arguments(source), reserve_arguments(TERMS)
    given = dict(zip(names, packed, strict=False))
    for name in ("campaign", "first_refusal", "last_refusal", "type", "queued"):
        assert given[name] == name
    assert (given["revision"], given["opens_at"], given["closes_at"]) == (9, 1, 2)
    assert (given["opens_refusal"], given["closes_refusal"]) == (Outcome.NOT_STARTED, Outcome.ENDED)
    assert (given["data"], given["serves"]) == (b"data", 1)
    assert packed[len(names) :] == [*GIVEN_CLAIM, *GIVEN_CLAIM]
    assert given["claims_end"] == len(packed), "who asks comes after that"
    kept = MadeOn.unpack(given["terms"])
    made_on = MadeOn("sku", 3, "state", ["counter", 1, "counter", 1], 11, "fingerprint", "facts")
    assert kept == made_on
    assert f"packed: {{{', '.join(MadeOn._fields)}}}" in section(source, "ARGV")


def test_moves_arguments_are_where_the_script_reads_them() -> None:
    names = arguments(lua("move"))
    move = Move(
        id=ReservationId("campaign", "digest"),
        version=7,
        user="user",
        sku="sku",
        quantity=3,
        state="state",
        claims=(CLAIM,),
        event="type",
        facts=b"facts",
        data=b"data",
        hold_ms=11,
        deadline_ms=12,
        gate=Gate(1, 2),
        revision=9,
        heeds_status=True,
        queued="queued",
    )
    given = dict(zip(names, move_arguments(move), strict=False))
    for name in ("campaign", "digest", "user", "sku", "state", "type", "queued"):
        assert given[name] == name
    assert (given["facts"], given["data"], given["heeds_status"]) == (b"facts", b"data", 1)
    assert (given["first_refusal"], given["last_refusal"]) == ("", ""), "nothing is known beforehand"
    assert (given["version"], given["quantity"], given["revision"]) == (7, 3, 9)
    assert (given["hold_ms"], given["deadline"], given["opens_at"], given["closes_at"]) == (11, 12, 1, 2)
    assert (given["opens_refusal"], given["closes_refusal"]) == (Outcome.NOT_STARTED, Outcome.ENDED)
    assert move_arguments(move)[len(names) :] == GIVEN_CLAIM


def test_places_arguments_are_where_the_script_reads_them() -> None:
    names, packed = arguments(lua("place")), place_arguments(TERMS, "user", b"details")
    given = dict(zip(names, packed, strict=False))
    for name in ("campaign", "user", "sku", "first_refusal", "last_refusal", "queued"):
        assert given[name] == name
    assert (given["quantity"], given["revision"], given["details"]) == (3, 9, b"details")
    assert (given["opens_at"], given["closes_at"]) == (1, 2)
    assert (given["opens_refusal"], given["closes_refusal"]) == (Outcome.NOT_STARTED, Outcome.ENDED)
    assert packed[len(names) :] == [*GIVEN_CLAIM, *GIVEN_CLAIM]


def listed_in(text: str) -> list[str]:
    """What is between the braces, comma by comma."""
    return [part.strip() for part in re.sub(r"\s+", " ", text).split(",")]


def test_the_record_has_one_order() -> None:
    source = lua("include/record")
    places: dict[str, int] = {}
    for names, numbers in re.findall(r"^local ([A-Z_, ]+) = ([\d, ]+)$", source, re.MULTILINE):
        if "," in names:
            places |= zip(names.split(", "), map(int, numbers.split(", ")), strict=True)
    assert [name.lower() for name, _ in sorted(places.items(), key=lambda item: item[1])] == list(
        Record._fields
    )


def test_the_short_record_and_its_terms_have_one_order() -> None:
    source, reserve = lua("include/record"), lua("reserve")
    comment = re.sub(r"\n-- ", " ", source)
    assert f"{{name of its {', '.join(ShortRecord._fields)}}}" in comment
    assert f"{{{', '.join(MadeOn._fields)}}}" in comment
    assert "pack({ terms_name, user, now })" in reserve, "terms, user, created_at"
    # Which of both it is is told by its length.
    assert {*re.findall(r"#record > (\d+)", source + lua("snapshot"))} == {str(len(ShortRecord._fields))}

    def written_out(text: str) -> list[str]:
        """The places of a whole record, each named after what is put there."""
        number = {f"terms[{at}]": name for at, name in enumerate(MadeOn._fields, 1)}
        number |= {f"record[{at}]": name for at, name in enumerate(ShortRecord._fields, 1)}
        return [number.get(part, part) for part in listed_in(text)]

    made = re.search(r"return \{ (terms\[.*?) \}\nend", source, re.DOTALL)
    assert made
    as_read = ["created_at" if name == "updated_at" else name for name in Record._fields]
    as_read[as_read.index("version")] = "1"
    assert written_out(made[1]) == as_read
    at_once = re.search(r"pack\(\{ (state, .*?) \}\)", reserve, re.DOTALL)
    assert at_once
    named = {"claims": "taken", "created_at": "now", "deadline": "hold_ms > 0 and now + hold_ms or 0"}
    assert written_out(at_once[1]) == [named.get(name, name) for name in as_read]
    (names, numbers) = re.findall(r"local ([\w, ]+) = (terms\[.*\])$", reserve, re.MULTILINE)[0]
    assert listed_in(names) == written_out(numbers)


def test_a_users_index_ends_where_the_kernel_says() -> None:
    assert f"INDEX_IDS_MAX = {INDEX_IDS_MAX}\n" in lua("include/users")


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
    caches = {".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__", ".hypothesis"}
    skipped = {".git", ".venv", ".bench"} | caches
    for path in ROOT.rglob("*"):
        if path.is_file() and not skipped & set(path.relative_to(ROOT).parts) and path.stat().st_size < 2**20:
            try:
                text = path.read_text("utf-8")
            except UnicodeDecodeError:
                continue
            assert not forbidden.search(text), path
