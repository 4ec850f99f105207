"""Every key that one script touches is in one cluster slot."""

from __future__ import annotations

import re

from redis.cluster import key_slot

from reservation.keys import SHARDS, campaign_keys, shard_of
from reservation.scripts import script


def test_all_keys_of_a_campaign_share_one_hash_tag() -> None:
    for campaign in ("singles-day-phones", "a", "x" * 64, "0"):
        keys = campaign_keys(campaign)
        named = {*keys.for_move, *keys.for_configure, keys.shard.dead}
        assert len({key_slot(key.encode()) for key in named}) == 1
        assert {re.search(r"\{(\d+)\}", key)[1] for key in named} == {str(shard_of(campaign))}  # type: ignore[index]


def test_campaigns_spread_over_the_shards() -> None:
    assert {shard_of(f"sale-{number}") for number in range(200)} == set(range(SHARDS))


def test_scripts_touch_only_declared_keys() -> None:
    for name in ("move", "configure"):
        for command, key in re.findall(r"redis\.call\('(\w+)',? ?([\w\[\]]*)", script(name).source):
            assert command == "TIME" or key.startswith(("KEYS[", "used_key", "caps_key", "index")), (
                command,
                key,
            )
