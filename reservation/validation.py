"""From JSON of unknown make to a strict document, or to what is wrong with it, field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

ERRORS_MAX = 50
D = TypeVar("D", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class FieldError:
    path: str
    """Like offers[0].price; empty for the whole."""
    message: str


class Invalid(Exception):
    """What was sent does not have the form it must have."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("; ".join(f"{e.path or 'body'}: {e.message}" for e in errors))
        self.errors = errors


def parse(document: type[D], found: object) -> D:
    """`found`, a JSON value, as the document. Raises Invalid."""
    try:
        # Through JSON once more, since strict mode takes times from JSON text only.
        return document.model_validate_json(orjson.dumps(found))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid(*(FieldError(_path(e["loc"]), _said(e["msg"])) for e in details[:ERRORS_MAX])) from None


def _path(places: tuple[int | str, ...]) -> str:
    path = ""
    for place in places:
        path += f"[{place}]" if isinstance(place, int) else f".{place}"
    return path.lstrip(".")


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")
