"""Writes every dashboard's file."""

from monitoring.dashboards import DASHBOARDS, DIRECTORY, text


def main() -> None:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, make in DASHBOARDS.items():
        (DIRECTORY / name).write_text(text(make()), encoding="utf-8")


if __name__ == "__main__":
    main()
