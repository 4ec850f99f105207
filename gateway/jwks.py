"""A JSON Web Key Set from a file or a URL, looked at again when it may have changed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import structlog

_FRESH_SECONDS = 300.0
_UNKNOWN_KEY_SECONDS_MIN = 10.0
"""A token with a key we do not know makes us look again, but no oftener than this."""
_FETCH_SECONDS_MAX = 5.0
_log = structlog.get_logger(__name__)


class KeySet:
    """Public keys by key id."""

    ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})

    def __init__(self, source: str) -> None:
        self._source = source
        self._keys: list[jwt.PyJWK] = []
        self._read_at = -_FRESH_SECONDS
        self._reading = asyncio.Lock()

    async def key(self, key_id: str | None, algorithm: str) -> Any:
        """The key that a token names, if it is for this algorithm; the only one, if it names none."""
        await self._read(_FRESH_SECONDS)
        found = self._find(key_id, algorithm)
        if found is None:
            await self._read(_UNKNOWN_KEY_SECONDS_MIN)
            found = self._find(key_id, algorithm)
        return found

    def _find(self, key_id: str | None, algorithm: str) -> Any:
        fitting = [key for key in self._keys if key.algorithm_name == algorithm]
        if key_id is not None:
            fitting = [key for key in fitting if key.key_id == key_id]
        return fitting[0].key if len(fitting) == 1 else None

    async def _read(self, seconds_min: float) -> None:
        async with self._reading:
            if time.monotonic() - self._read_at < seconds_min:
                return
            self._read_at = time.monotonic()
            try:
                found = jwt.PyJWKSet.from_json(await self._text()).keys
                # Not keys to encrypt with, nor private ones, which an issuer published by mistake.
                self._keys = [
                    key for key in found if key.public_key_use in (None, "sig") and hasattr(key.key, "verify")
                ]
            except Exception as error:
                # Whatever is wrong with it, the keys that we have stay good: an outage of the issuer
                # is not one of ours.
                _log.error("jwks_not_read", source=self._source, error=f"{type(error).__name__}: {error}")

    async def _text(self) -> str:
        if not self._source.startswith(("http://", "https://")):
            return await asyncio.to_thread(Path(self._source).read_text, "utf-8")
        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS_MAX)
        async with (
            aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
            session.get(self._source) as answer,
        ):
            return await answer.text()
