"""What docs/traces.md says to put beside docker-compose.yml fits it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from doorbuster.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]


def test_the_file_beside_the_composition_names_its_services_and_our_settings() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/traces.md").read_text(), re.DOTALL)
    beside = yaml.safe_load(text)["services"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert beside.keys() - services.keys() == {"jaeger"}
    for name in beside.keys() & services.keys():
        given = {
            key.removeprefix(PREFIX).lower(): value for key, value in beside[name]["environment"].items()
        }
        settings = Settings(**given)
        assert settings.traces_url == "http://jaeger:4318/v1/traces"
        assert settings.traces_sample == 0.01
