"""The documentation's examples do what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.docs.story import Story, read
from tests.stack import Client, Stack, stack

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("examples"), "--workers", "1") as running:
        yield running


@pytest.fixture
async def client(up: Stack) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(up.url, session)


@pytest.mark.parametrize("name", ["flash-sale", "presale", "trade-in"])
async def test_a_worked_example_is_true_line_by_line(client: Client, name: str) -> None:
    story = Story(client)
    parts = read(EXAMPLES / f"{name}.md")
    assert len(parts) > 10
    for part in parts:
        await story.tell(part)
