"""Every key that one script touches is in one cluster slot."""

from __future__ import annotations

import re

import pytest
from redis.cluster import key_slot

from reservation.keys import SHARDS, offer_keys, order_keys, shard_of
from reservation.scripts import script


def test_all_keys_of_a_campaign_share_one_hash_tag() -> None:
    for campaign in ("singles-day-phones", "a", "x" * 64, "0"):
        keys = offer_keys(campaign, "phone")
        named = {*keys.for_move, *keys.for_configure, *keys.for_place, *keys.for_rank, *keys.for_grant}
        named.add(keys.shard.dead)
        assert len({key_slot(key.encode()) for key in named}) == 1
        assert {re.search(r"\{(\d+)\}", key)[1] for key in named} == {str(shard_of(campaign))}  # type: ignore[index]


def test_campaigns_spread_over_the_shards() -> None:
    assert {shard_of(f"sale-{number}") for number in range(200)} == set(range(SHARDS))


def test_all_keys_of_a_main_order_share_one_hash_tag() -> None:
    for order in ("1", "order-77", "A:b.c"):
        assert len({key_slot(key.encode()) for key in order_keys(order).for_order}) == 1


@pytest.mark.parametrize("name", ["move", "configure", "place", "rank", "grant", "order"])
def test_scripts_touch_only_declared_keys(name: str) -> None:
    passed = re.compile(r"KEYS\[\d+\]|(campaign|used|caps|tally|ranking|final|places|queue|queues)_key|index")
    for command, key in re.findall(r"redis\.call\('(\w+)',? ?([\w\[\]]*)", script(name).source):
        channel_or_clock = command in ("TIME", "PUBLISH")
        assert channel_or_clock or passed.fullmatch(key) or key == "ranking", (command, key)
