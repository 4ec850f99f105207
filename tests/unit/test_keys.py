"""Every key that one script touches is in one cluster slot."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from redis.cluster import key_slot

from reservation.keys import SHARDS, offer_keys, order_keys, shard_of
from reservation.scripts import script


def test_all_keys_of_a_campaign_share_one_hash_tag() -> None:
    for campaign in ("singles-day-phones", "a", "x" * 64, "0"):
        keys = offer_keys(campaign, "phone")
        named = {*keys.for_reserve(60_000), *keys.for_move, *keys.for_configure, *keys.for_place}
        named |= {
            *keys.for_rank,
            *keys.for_grant,
            *keys.for_snapshot,
            *keys.for_restore,
            *keys.for_restate,
            *keys.for_adjust,
            *keys.shard.for_forget,
            keys.shard.dead,
        }
        assert len({key_slot(key.encode()) for key in named}) == 1
        assert {re.search(r"\{(\d+)\}", key)[1] for key in named} == {str(shard_of(campaign))}  # type: ignore[index]


def test_campaigns_spread_over_the_shards() -> None:
    assert {shard_of(f"sale-{number}") for number in range(200)} == set(range(SHARDS))


def test_all_keys_of_a_main_order_share_one_hash_tag() -> None:
    for order in ("1", "order-77", "A:b.c"):
        assert len({key_slot(key.encode()) for key in order_keys(order).for_order}) == 1


SCRIPTS = [
    *("reserve", "move", "restore", "restate", "adjust", "place", "snapshot"),
    *("configure", "rank", "grant", "order", "forget", "enter", "lift"),
]
DECLARED = re.compile(r"KEYS\[\d+\]|[a-z]+_key")


def test_every_script_is_looked_at() -> None:
    found = (files("reservation") / "lua").iterdir()
    assert sorted(SCRIPTS) == sorted(path.name.removesuffix(".lua") for path in found if path.is_file())


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_touch_only_declared_keys(name: str) -> None:
    for command, key in re.findall(r"redis\.call\('(\w+)',? ?([\w\[\]]*)", script(name).source):
        channel_or_clock = command in ("TIME", "PUBLISH")
        # rank.lua has two rankings, and chooses one of its KEYS.
        assert channel_or_clock or DECLARED.fullmatch(key) or key in ("ranking", ""), (command, key)


def given_in(call: str) -> list[str]:
    """The arguments of a call, from what follows its opening bracket."""
    found, depth = [""], 0
    for sign in call:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            break
        if sign == "," and depth == 0:
            found.append("")
        else:
            found[-1] += sign
    return [one.strip() for one in found]


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_called_a_key_is_a_key(name: str) -> None:
    source = script(name).source
    functions = {
        function: [parameter.strip() for parameter in parameters.split(",")]
        for function, parameters in re.findall(r"^ *local function (\w+)\((.*?)\)", source, re.MULTILINE)
    }
    calls = re.compile(rf"(?<!function )\b({'|'.join(functions) or 'none'})\(")
    for match in calls.finditer(source):
        given = given_in(source[match.end() :])
        for parameter, one in zip(functions[match[1]], given, strict=False):
            assert parameter.endswith("_key") == bool(DECLARED.fullmatch(one)), (match[1], parameter, one)
