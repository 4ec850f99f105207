"""The command: one run against one address, its summary, and its result in a file if wanted.

Exits with 1 when the generator did not keep up: then the numbers are not the service's.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from loadtests.openloop.generator import run
from loadtests.openloop.plan import Plan
from loadtests.openloop.reservations import reservations
from loadtests.openloop.schedule import constant, poisson
from loadtests.openloop.summary import summary


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    url = urlsplit(options.url)
    seconds = options.warm_up + options.seconds
    try:
        if url.scheme != "http" or not url.hostname:
            raise ValueError(f"{options.url}: not an http:// URL")
        schedule = (
            poisson(options.rate, seconds, options.seed)
            if options.poisson
            else constant(options.rate, seconds)
        )
        plan = Plan(
            host=url.hostname,
            port=url.port or 80,
            schedule=schedule,
            warm_up_s=options.warm_up,
            connections_min=options.connections_min,
            connections_max=options.connections,
            patience_s=options.patience,
            line_max=options.line,
            answer_s=options.answer,
            busy_poll=options.busy_poll,
        )
        shoppers = _shoppers(options.tokens)
        request_of = reservations(url, shoppers, run=options.run or uuid.uuid4().hex[:12], sku=options.sku)
    except (OSError, TypeError, ValueError) as error:
        print(f"openloop: {error}", file=sys.stderr)
        return 2
    result = uvloop.run(run(plan, request_of))
    print("\n".join(summary(result)), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result.as_json(), indent=2) + "\n")
    return 0 if result.generator_kept_up else 1


def _shoppers(tokens: Path) -> list[tuple[str, str]]:
    try:
        return [(str(user), str(token)) for user, token in json.loads(tokens.read_bytes())]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{tokens}: not a JSON list of [user, token]: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.openloop", description=__doc__)
    add = parser.add_argument
    add("--url", required=True, help="Where to reserve: http://HOST:PORT/v1/campaigns/ID/reservations.")
    add("--rate", type=float, required=True, help="Arrivals per second.")
    add("--seconds", type=float, default=10.0, help="How long arrivals are recorded.")
    add("--warm-up", type=float, default=0.0, help="Seconds before that, with the same rate.")
    add("--poisson", action="store_true", help="Arrivals at random, not at equal distances.")
    add("--seed", type=int, default=1, help="Of the random arrivals.")
    add("--connections", type=int, default=512, help="At most so many.")
    add("--connections-min", type=int, default=0, help="So many are opened before the clock starts.")
    add("--patience", type=float, default=2.0, help="Seconds that an arrival waits for a connection.")
    add("--line", type=int, default=10_000, help="At most so many arrivals wait for one.")
    add("--answer", type=float, default=10.0, help="Seconds that an answer may take.")
    add("--busy-poll", action="store_true", help="Look at the clock all the time; takes a whole core.")
    add("--tokens", type=Path, required=True, help="A file: the JSON list of [user, token].")
    add("--sku", default="phone-16", help="What is reserved.")
    add("--run", help="What this run's idempotency keys begin with; random by default.")
    add("--json", type=Path, help="Write the result to this file.")
    return parser


if __name__ == "__main__":
    sys.exit(main())
