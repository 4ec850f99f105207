"""A client of the service: makes requests, counts what came of them, and stays away when told to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from locust import FastHttpUser
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, FastResponse

from loadtests.answers import BUSY, Answer, Unexpected
from loadtests.tally import TALLY
from loadtests.timeline import TIMELINE, UNEXPECTED

IDLE_SECONDS_MAX = 15.0
"""After this, servers and what stands before them may close a connection just as we use it again."""
ANSWER_SECONDS_MAX = 10.0
"""No shopper waits longer; a slower answer is a failure."""
NO_ANSWER = Answer(0, {}, b"")
UNKNOWN = BUSY | {UNEXPECTED}
"""After these, nobody knows whether it was done."""
Check = Callable[[Answer], str]


class Asker(FastHttpUser):
    """Asks as somebody, who has a token."""

    abstract = True
    connection_timeout = ANSWER_SECONDS_MAX
    network_timeout = ANSWER_SECONDS_MAX
    _token = ""

    def on_start(self) -> None:
        self._not_before = self._last_asked = time.monotonic()

    def ask(
        self,
        request: str,
        method: str,
        path: str,
        check: Check,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        *,
        data: str | None = None,
        token: str | None = None,
    ) -> tuple[str, Answer]:
        """Make a request, and count it: for Locust by its name, for the table by its outcome too.

        As the one whose `token` this is; as nobody, where it is empty. `data` is a body as it stands.
        """
        if time.monotonic() - self._last_asked > IDLE_SECONDS_MAX:
            self.client.client.clientpool.close()
        token = self._token if token is None else token
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        if data is not None:
            sent["Content-Type"] = "application/json"
        answer = NO_ANSWER
        started = time.perf_counter()
        with self.client.request(
            method,
            path,
            name=request,
            json=body,
            data=data,
            headers=sent | (headers or {}),
            catch_response=True,
        ) as response:
            try:
                answer = _heard(response)
                ms = (time.perf_counter() - started) * 1000
                outcome = check(answer)
                response.success()
            except Unexpected as unexpected:
                ms = (time.perf_counter() - started) * 1000
                outcome = UNEXPECTED
                response.failure(str(unexpected))
        self.count(request, outcome, ms, answer)
        return outcome, answer

    def count(self, request: str, outcome: str, ms: float, answer: Answer) -> None:
        """Count a request, and heed what its answer says of coming back."""
        TALLY.count(request, outcome)
        TIMELINE.note(time.time(), request, outcome, ms)
        self._last_asked = time.monotonic()
        self._not_before = max(self._not_before, self._last_asked + answer.retry_after_s)


def _heard(response: FastResponse) -> Answer:
    """The answer. Raises Unexpected when there is none, or only part of one."""
    try:
        content = response.content or b""
    except FAILURE_EXCEPTIONS as error:
        raise Unexpected(f"the answer broke off: {type(error).__name__}") from None
    if response.status_code == 0:
        raise Unexpected(f"no answer: {type(getattr(response, 'error', None)).__name__}")
    headers = {name.lower(): value for name, value in (response.headers or {}).items()}
    return Answer(response.status_code, headers, content)
