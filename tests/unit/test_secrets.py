"""The secrets that `doorbuster up` makes are made once, and what an older version made is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from doorbuster.data_dir import with_secrets
from doorbuster.settings import PREFIX, read_settings

NAMES = ["jwt_secret", "notify_secret", "psp_secret", "service_key"]


@pytest.fixture(autouse=True)
def nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def test_secrets_are_made_once(tmp_path: Path) -> None:
    made = with_secrets(read_settings(), tmp_path)
    assert len({getattr(made, name) for name in NAMES} - {None}) == len(NAMES)
    assert with_secrets(read_settings(), tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.json"]
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0


def test_what_an_older_version_made_is_kept_and_completed(tmp_path: Path) -> None:
    old = {"jwt_secret": "j" * 40, "service_key": "dbk_" + "s" * 40, "psp_secret": "whsec_cHNw"}
    (tmp_path / "secrets.json").write_text(json.dumps(old))
    found = with_secrets(read_settings(), tmp_path)
    assert found.model_dump(include=set(old)) == old
    assert found.notify_secret is not None
    kept = json.loads((tmp_path / "secrets.json").read_text())
    assert kept == old | {"notify_secret": found.notify_secret}
    assert with_secrets(read_settings(), tmp_path) == found


def test_a_secret_that_is_given_comes_first(tmp_path: Path) -> None:
    given = read_settings(notify_secret="whsec_Z2l2ZW4=")
    assert with_secrets(given, tmp_path).notify_secret == "whsec_Z2l2ZW4="
