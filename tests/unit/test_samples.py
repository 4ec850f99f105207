"""The campaigns that come with us: valid, and explained in full."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from doorbuster.apply import read_campaigns, sample_files
from reservation.kinds import KINDS


def fields(found: Any) -> Iterator[str]:
    """The names of all fields, however deep."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield name
            yield from fields(value)
    if isinstance(found, list):
        for one in found:
            yield from fields(one)


@pytest.mark.parametrize("path", sample_files(), ids=lambda path: path.stem)
def test_a_sample_is_valid_and_its_comments_explain_every_field(path: Path) -> None:
    (campaign,) = read_campaigns(path)
    assert campaign.id == path.stem
    comments = " ".join(re.findall(r"#(.*)", path.read_text()))
    named = set(fields(yaml.safe_load(path.read_text())))
    assert named - set(re.findall(r"\w+", comments)) == set()


def test_there_is_a_sample_of_each_kind() -> None:
    assert {read_campaigns(path)[0].kind for path in sample_files()} == KINDS.keys()
