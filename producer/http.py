"""`HttpProducer`: what `Producer` is, for a service that reaches no ledger and no broker but the HTTP API."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote
from uuid import UUID

import httpx

from producer import errors
from producer.canonical import canonical_json
from producer.conversation import Conversation, Message
from producer.envelope import DEFAULT_PRIORITY, OnClosed, Request, batch_of, plain_params
from producer.errors import ApiUnavailable, InvalidRequest, JobNotFound, SettingsError
from producer.http_answers import LONGEST_PAUSE_SECONDS, answer_of, is_in_flight, retry_after
from producer.http_approvals import HttpApprovals
from producer.http_budgets import HttpBudgets
from producer.http_operators import HttpBreakers, HttpKeys, HttpPolicies, HttpRoles, HttpSchedules
from producer.job import Job, as_job_id
from producer.ledger.acts import ActRecord
from producer.ledger.cancel import Cancelled
from producer.ledger.conversations import HISTORY_MESSAGES
from producer.ledger.reads import Event, JobRecord, PublishedAction
from producer.ledger.resolve import Verdict
from producer.ledger.states import State
from producer.records import record_of

if TYPE_CHECKING:
    from producer.explain import Explanation

TIMEOUT_SECONDS = 10.0
RETRY_SECONDS = 30.0
LONGEST_POLL_SECONDS = 25.0
FIRST_PAUSE_SECONDS = 0.1
PAGE = 500
AGAIN = frozenset({408, 425, 429, 502, 503, 504})


class HttpProducer:
    """Asks, decides and looks over HTTP, by the same methods and errors as `Producer`. Safe to share between threads.

    What fails on its way is tried again by itself for half a minute: an accept under its key, which makes one job
    however often it arrives; and a look. A decision (cancel, retry, resolve) is tried again where it surely did not
    arrive.

    Example:
        >>> producer = HttpProducer("https://surefoot.internal", key="sf_…")
        >>> producer.enqueue("email.send", {"to": "a@example.com", …}, idempotency_key="invoice-7").wait(30).state
        <State.SUCCEEDED: 'succeeded'>
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Connect nothing yet.

        Args:
            url: Where the API is; by default ``SUREFOOT_API_URL``.
            key: By default ``SUREFOOT_API_KEY``; without one none is sent.
            timeout: For one request, in seconds.
            retry_seconds: For how long what failed on its way is tried again; 0 is not at all.

        Raises:
            SettingsError: If no URL is known.
        """
        url, key = url or os.environ.get("SUREFOOT_API_URL"), key or os.environ.get("SUREFOOT_API_KEY")
        if not url:
            raise SettingsError("SUREFOOT_API_URL is not set; give it the API's URL, such as http://127.0.0.1:8100")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self._timeout, self._retry_seconds = timeout, retry_seconds
        self.waiting = _LongPolls(self)

    def enqueue(
        self,
        action: str,
        params: Any = None,
        *,
        idempotency_key: str | None = None,
        user_id: str | None = None,
        request_id: str | None = None,
        agent_id: str | None = None,
        input: Any = None,  # noqa: A002  the word of the decision record
        reasoning: str | None = None,
        trace: str | None = None,
        run_at: datetime | None = None,
        deadline: datetime | None = None,
        priority: int = DEFAULT_PRIORITY,
        queue: str | None = None,
        on_closed: OnClosed = "replay",
    ) -> Job:
        """Have an action performed; see `Producer.enqueue`.

        Raises:
            ApiUnavailable: If it cannot be reached for as long as it is tried. Asking again with the same key is safe.
        """
        asked = Request(
            action=action,
            params={} if params is None else params,
            idempotency_key=idempotency_key,
            user_id=user_id,
            request_id=request_id,
            agent_id=agent_id,
            input=input,
            reasoning=reasoning,
            trace=trace,
            run_at=run_at,
            deadline=deadline,
            priority=priority,
            queue=queue,
            on_closed=on_closed,
        )
        return self.enqueue_many([asked])[0]

    def enqueue_many(
        self,
        requests: Iterable[Request | Mapping[str, Any]],
        *,
        conflicts: Literal["raise", "return"] = "raise",
    ) -> list[Job]:
        """Have several performed; see `Producer.enqueue_many`."""
        asked = [_plain(_fields_of(each), index) for index, each in enumerate(batch_of(requests))]
        if not asked:
            return []
        answer = self._ask("POST", "/v1/batches", {"requests": asked, "conflicts": conflicts}, repeatable=True)
        return [
            Job(self, UUID(job["id"]), outcome=job["outcome"], conflict_paths=tuple(job["conflict_paths"]))
            for job in answer["jobs"]
        ]

    def job(self, job_id: UUID | str) -> Job:
        """Return the job with this id; see `Producer.job`."""
        record = self.read(as_job_id(job_id))
        if record is None:
            raise JobNotFound(f"job {job_id} is not in the ledger")
        return Job(self, record.id, record=record)

    def find(self, action: str, idempotency_key: str) -> Job | None:
        """Return the newest job that the key stands for; None where there is none."""
        try:
            found = self._look("/v1/jobs/by-key", action=action, idempotency_key=idempotency_key)
        except JobNotFound:
            return None
        record = record_of(JobRecord, found)
        return Job(self, record.id, record=record)

    def jobs(
        self,
        *,
        state: State | None = None,
        action: str | None = None,
        limit: int = 50,
        before: UUID | str | None = None,
    ) -> list[Job]:
        """Return at most `limit` jobs, the newest first; see `Producer.jobs`."""
        found: list[Job] = []
        cursor = None if before is None else str(as_job_id(before))
        while len(found) < limit:
            asked = {"state": state, "action": action, "limit": min(PAGE, limit - len(found)), "cursor": cursor}
            page = self._look("/v1/jobs", **asked)
            records = [record_of(JobRecord, each) for each in page["jobs"]]
            found += [Job(self, record.id, record=record) for record in records]
            cursor = page["next"]
            if cursor is None:
                break
        return found

    def chain(self, request_id: str) -> list[JobRecord]:
        """Return every decision made for one request, in the order they were made; empty where there is none."""
        try:
            found = self._look(f"/v1/requests/{quote(request_id, safe='')}/chain")
        except JobNotFound:
            return []
        return [record_of(JobRecord, each) for each in found["jobs"]]

    def explain(self, job_id: UUID | str) -> Explanation:
        """Say why a job ran, or why it does not; see `Producer.explain`."""
        return _explanation(self._look(f"/v1/jobs/{as_job_id(job_id)}/explain"))

    def explain_key(self, idempotency_key: str, *, action: str | None = None) -> list[Explanation]:
        """Explain the jobs that a key stands for, those of one action, the newest first; empty where there is none."""
        try:
            found = self._look("/v1/jobs/by-key/explain", idempotency_key=idempotency_key, action=action)
        except JobNotFound:
            return []
        return [_explanation(each) for each in found["explanations"]]

    def explain_request(self, request_id: str) -> list[Explanation]:
        """Explain every decision that was made for one request, in the order they were made."""
        try:
            found = self._look(f"/v1/requests/{quote(request_id, safe='')}/explain")
        except JobNotFound:
            return []
        return [_explanation(each) for each in found["explanations"]]

    def conversation(self, conversation_id: str, *, limit: int = HISTORY_MESSAGES) -> Conversation:
        """Return a conversation with the newest `limit` of its messages; see `Producer.conversation`."""
        try:
            found = self._look(f"/v1/conversations/{quote(conversation_id, safe='')}", limit=limit)
        except JobNotFound:
            raise errors.ConversationNotFound from None
        messages = tuple(record_of(Message, each) for each in found.pop("messages"))
        waiting = tuple(UUID(each) for each in found.pop("waiting"))
        return record_of(Conversation, found | {"tenant": ""}, messages=messages, waiting=waiting)

    def actions(self) -> dict[str, PublishedAction]:
        """Return every action that workers have published, by name, read now."""
        return {each["name"]: record_of(PublishedAction, each) for each in self._look("/v1/actions")["actions"]}

    def cancel(self, job_id: UUID | str, *, reason: str | None = None) -> Cancelled:
        """Cancel a job, or ask its worker to; see `Producer.cancel`."""
        # Asking again is answered alike, so it may be.
        path = f"/v1/jobs/{as_job_id(job_id)}/cancel"
        answer: Cancelled = self._ask("POST", path, {"reason": reason}, repeatable=True)["answer"]
        return answer

    def retry(self, job_id: UUID | str, *, reason: str, who: str | None = None) -> Job:
        """Give a dead job one more attempt; see `Producer.retry`. Who says so is the key's holder."""
        _refuse_who(who)
        record = record_of(JobRecord, self._ask("POST", f"/v1/jobs/{as_job_id(job_id)}/retry", {"reason": reason}))
        return Job(self, record.id, record=record)

    def resolve(
        self, job_id: UUID | str, verdict: Verdict, *, reason: str, result: Any = None, who: str | None = None
    ) -> Job:
        """Say what became of a job in doubt; see `Producer.resolve`. Who says so is the key's holder."""
        _refuse_who(who)
        said = {"verdict": verdict, "reason": reason, "result": result}
        record = record_of(JobRecord, self._ask("POST", f"/v1/jobs/{as_job_id(job_id)}/resolve", said))
        return Job(self, record.id, record=record)

    def undo(self, job_id: UUID | str, *, reason: str, who: str | None = None) -> Job:
        """Have what a job did taken back; see `Producer.undo`. Asking again is answered with the same job."""
        _refuse_who(who)
        answer = self._ask("POST", f"/v1/jobs/{as_job_id(job_id)}/undo", {"reason": reason}, repeatable=True)
        record = record_of(JobRecord, answer["job"])
        return Job(self, record.id, record=record, outcome=answer["outcome"])

    def read(self, job_id: UUID, *, wait: float = 0.0) -> JobRecord | None:
        """Return a job as it stands once it is at rest, or after `wait` seconds; None where there is none."""
        try:
            found = self._ask("GET", f"/v1/jobs/{job_id}", query={"wait": wait}, repeatable=True, more_seconds=wait)
        except JobNotFound:
            return None
        return record_of(JobRecord, found)

    def events(self, job_id: UUID) -> list[Event]:
        """Return a job's history in order."""
        return [record_of(Event, each) for each in self._look(f"/v1/jobs/{job_id}/events")["events"]]

    @cached_property
    def approvals(self) -> HttpApprovals:
        """What waits for a person: ``list``, ``get``, ``approve``, ``reject``, ``withdraw``, ``edit``, ``token``."""
        return HttpApprovals(self._ask)

    @cached_property
    def schedules(self) -> HttpSchedules:
        """This tenant's schedules: ``add``, ``list``, ``get``, ``pause``, ``resume``, ``remove``, ``next_ticks``."""
        return HttpSchedules(self._ask)

    @cached_property
    def breakers(self) -> HttpBreakers:
        """The whole fleet's breakers: ``list``, ``get``, ``history``, and ``force`` for operators."""
        return HttpBreakers(self._ask)

    @cached_property
    def policies(self) -> HttpPolicies:
        """The policies that workers have published: ``list``, and ``retire`` for what no code declares any more."""
        return HttpPolicies(self._ask)

    @cached_property
    def roles(self) -> HttpRoles:
        """Who has which role: ``grant``, ``revoke``, ``list``."""
        return HttpRoles(self._ask)

    @cached_property
    def keys(self) -> HttpKeys:
        """The tenant's keys: ``create``, ``list``, ``revoke``."""
        return HttpKeys(self._ask)

    @cached_property
    def budgets(self) -> HttpBudgets:
        """Ceilings and what is left of them; calling it lists how the shares stand."""
        return HttpBudgets(self._ask)

    def acts(
        self,
        *,
        since: datetime | None = None,
        before: int | None = None,
        act: str | None = None,
        who: str | None = None,
        job_id: UUID | str | None = None,
        limit: int = 100,
    ) -> list[ActRecord]:
        """Return things that people did, to jobs and beside, the newest first; see `Producer.acts`."""
        asked = {"since": None if since is None else since.isoformat(), "act": act, "who": who}
        asked |= {"job_id": None if job_id is None else str(as_job_id(job_id))}
        found: list[ActRecord] = []
        while len(found) < limit:
            page = self._look("/v1/acts", **asked, cursor=before, limit=min(PAGE, limit - len(found)))
            found += [record_of(ActRecord, each) for each in page["acts"]]
            before = page["next"]
            if before is None:
                break
        return found

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    # ---- asking ------------------------------------------------------------------------------------------------

    def _look(self, path: str, **query: Any) -> Any:
        return self._ask("GET", path, query=query, repeatable=True)

    def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        repeatable: bool = False,
        more_seconds: float = 0.0,
    ) -> Any:
        """Ask until there is an answer that counts, or the time for that is up."""
        until, pause = time.monotonic() + self._retry_seconds, FIRST_PAUSE_SECONDS
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        sent = {} if body is None else {"json": body}
        while True:
            after: float | None = None
            try:
                response = self._client.request(
                    method, path, params=asked, timeout=self._timeout + more_seconds, **sent
                )
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                why = f"{type(error).__name__}: {error}"
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
                if not repeatable:
                    raise ApiUnavailable(f"{why}; whether it arrived is not known") from error
            else:
                if response.status_code not in AGAIN and not is_in_flight(response):
                    return answer_of(response)
                why, after = f"the API answered {response.status_code}", retry_after(response)
                if response.status_code == httpx.codes.GATEWAY_TIMEOUT and not repeatable:
                    raise ApiUnavailable(f"{why}; whether it arrived is not known")
            wait = pause * (0.5 + random.random() / 2) if after is None else after  # noqa: S311  no secret
            if time.monotonic() + wait >= until:
                raise ApiUnavailable(why)
            time.sleep(wait)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


class _LongPolls:
    """What `Job.wait` waits by."""

    def __init__(self, producer: HttpProducer) -> None:
        self._producer = producer

    def wait(self, job_id: UUID, *, until: float) -> None:
        """Return when there may be news of the job, and at the latest at `until` on the monotonic clock."""
        left = until - time.monotonic()
        if left > 0:
            self._producer.read(job_id, wait=min(left, LONGEST_POLL_SECONDS))


def _explanation(told: Mapping[str, Any]) -> Explanation:
    from producer.explain import Explanation, Line, Step  # noqa: PLC0415  sentences, for this alone

    lines = tuple(record_of(Line, each) for each in told["lines"])
    steps = tuple(record_of(Step, each) for each in told["next_steps"])
    return record_of(Explanation, told, lines=lines, next_steps=steps)


def _fields_of(request: Request | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(request, Request):
        return request
    return {each.name: getattr(request, each.name) for each in fields(request)}


def _plain(fields_: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return a request as JSON has it.

    Raises:
        InvalidRequest: If JSON cannot have it; nothing was sent.
    """
    asked = {name: value for name, value in fields_.items() if value is not None}
    for name in ("run_at", "deadline"):
        if isinstance(asked.get(name), datetime):
            asked[name] = asked[name].isoformat()
    try:
        asked["params"] = plain_params(asked.get("params", {}))
        for name, value in asked.items():
            canonical_json(value, where=name)
    except InvalidRequest as error:
        raise InvalidRequest(error.where, error.problem, index) from error
    return asked


def _refuse_who(who: str | None) -> None:
    if who is not None:
        raise InvalidRequest("who", "is the holder of the key, over HTTP; leave it out")
