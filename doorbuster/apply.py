"""`doorbuster apply`: campaigns from files."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import orjson
import yaml

from doorbuster import bootstrap
from doorbuster.settings import Settings
from reservation.administration import Change
from reservation.campaign import CampaignDocument
from reservation.catalog import parse_campaign
from reservation.validation import FieldError, Invalid


def read_campaigns(path: Path) -> list[CampaignDocument]:
    """The campaigns that a file describes. Raises Invalid."""
    try:
        found = list(yaml.safe_load_all(path.read_text("utf-8")))  # JSON is YAML
        found = orjson.loads(orjson.dumps(found))  # times as text, as the wire has them
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(FieldError(str(path), f"cannot be read: {error}")) from None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise Invalid(FieldError(str(path), f"is not YAML: {' '.join(str(error).split())}")) from None
    campaigns = []
    for place, document in enumerate(found):
        try:
            campaigns.append(parse_campaign(document))
        except Invalid as invalid:
            where = str(path) if len(found) == 1 else f"{path}[{place}]"
            raise Invalid(
                *(FieldError(f"{where}: {e.path or 'document'}", e.message) for e in invalid.errors)
            ) from None
    if not campaigns:
        raise Invalid(FieldError(str(path), "holds no campaign"))
    return campaigns


async def apply_files(settings: Settings, files: list[Path]) -> list[str]:
    """Apply all campaigns of all files; what each did, in words. Nothing is applied if one is invalid."""
    documents = [document for path in files for document in read_campaigns(path)]
    said = []
    async with bootstrap.administration(settings) as (administration, catalog):
        for document in documents:
            before = await catalog.load(document.id)
            change, campaign = await administration.put(document)
            said.append(f"{document.id}: {change}")
            if change is Change.CHANGED and before is not None:
                old, new = before.document.to_json(), campaign.document.to_json()
                said += [f"  {line}" for line in _differences("", old, new)]
    return said


def sample_files() -> list[Path]:
    """The campaigns that come with us, one of each kind."""
    return sorted(Path(str(package_files("doorbuster") / "samples")).glob("*.yaml"))


async def apply_samples(settings: Settings) -> list[CampaignDocument]:
    """Apply the campaigns that come with us; which they are."""
    await apply_files(settings, sample_files())
    return [document for path in sample_files() for document in read_campaigns(path)]


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    """Where two JSON values differ: "offers.phone-16.stock: 100 -> 200"."""
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(x, dict) for x in old + new):
        old = {str(x.get("sku", i)): x for i, x in enumerate(old)}
        new = {str(x.get("sku", i)): x for i, x in enumerate(new)}
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from _differences(f"{path}.{name}".lstrip("."), old.get(name), new.get(name))
    elif old != new:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return "none" if value is None else orjson.dumps(value).decode()
