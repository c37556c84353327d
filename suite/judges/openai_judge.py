"""A model behind the OpenAI chat protocol: bounded in calls, cost and concurrency, retried, never paid for twice knowingly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from suite.errors import UserError
from suite.judges.judging import Answer, Failure, Question
from suite.judges.templates import Template

DEFAULT_URL = "https://api.openai.com/v1"
PRICES = {
    "gpt-4o": (2.5, 10.0), "gpt-4o-mini": (0.15, 0.6), "gpt-4.1": (2.0, 8.0), "gpt-4.1-mini": (0.4, 1.6), "gpt-4": (30.0, 60.0),
}  # fmt: skip
"""USD per million prompt and completion tokens, OpenAI's list prices of 2025; check yours and pass --price."""
OVERHEAD_TOKENS = 64
BYTES_PER_TOKEN = 4.0
REPLY_TOKENS = 60
REFUSED = {401: "the key is not accepted", 403: "the key may not use this model", 404: "there is no such model or address"}


@dataclass(frozen=True)
class Limits:
    """What a run may use."""

    max_calls: int | None = None
    """Requests, retries included."""
    max_cost: float | None = None
    """USD. A request is only sent if the bill stays below this even if it is as long as it can be."""
    concurrency: int = 8
    """Requests at once."""
    attempts: int = 6
    """Requests per question before it counts as failed."""
    timeout_s: float = 60.0
    """For a whole reply, however slowly it drips."""
    backoff_s: float = 1.0
    """First wait of an exponential backoff with jitter, at most 60 s; a server's Retry-After is honoured."""


NO_LIMITS = Limits()


class Retryable(Exception):
    """No reply this time."""

    def __init__(self, reason: str, *, wait_s: float | None = None, maybe_paid: bool = False) -> None:
        super().__init__(reason)
        self.wait_s, self.maybe_paid = wait_s, maybe_paid


@dataclass
class Bill:
    """What was used, and what requests in flight may still cost. USD where a price is known, else 0.

    Attributes:
        calls: Requests sent.
        cost: Paid for replies; for requests that may have been paid without one, the most they can have cost.
        maybe_paid: Requests without a reply that the server may charge all the same (timeouts, resets, broken replies).
    """

    price: tuple[float, float] | None
    limits: Limits
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    maybe_paid: int = 0
    _in_flight: list[float] = field(default_factory=list)
    _settled: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __str__(self) -> str:
        return (
            f"{self.calls:,} calls, {self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
            + (f", at most {self.cost:.4f} USD" if self.price else "")
            + (f"; {self.maybe_paid} calls without a usable reply may be charged" if self.maybe_paid else "")
        )

    async def open(self, most: float) -> None:
        """Reserve `most` USD for a request.

        Raises:
            UserError: The request could pass a limit.
        """
        limits = self.limits
        async with self._settled:
            while limits.max_cost is not None and self._in_flight and self.cost + sum(self._in_flight) + most > limits.max_cost:
                await self._settled.wait()  # those in flight may turn out cheaper
            if limits.max_cost is not None and self.cost + most > limits.max_cost:
                raise UserError(
                    f"--max-cost {limits.max_cost:g} would be passed: {self.cost:.4f} USD are spent and the next request may "
                    f"cost {most:.4f}; verdicts so far are stored, raise it to go on"
                )
            if limits.max_calls is not None and self.calls >= limits.max_calls:
                raise UserError(f"--max-calls {limits.max_calls} is reached; verdicts so far are stored, raise it to go on")
            self.calls += 1
            self._in_flight.append(most)

    async def close(self, most: float, answer: Answer | None, *, maybe_paid: bool = False) -> None:
        """Replace the reservation by what was paid."""
        async with self._settled:
            self._in_flight.remove(most)
            self.maybe_paid += maybe_paid
            if answer is not None and answer.prompt_tokens:
                self.prompt_tokens += answer.prompt_tokens
                self.completion_tokens += answer.completion_tokens
                self.cost += cost_of(answer.prompt_tokens, answer.completion_tokens, self.price)
            elif answer is not None or maybe_paid:
                self.cost += most
            self._settled.notify_all()


class OpenAIJudge:
    """Asks `model` at OPENAI_BASE_URL (OpenAI's own if unset) with the key in OPENAI_API_KEY.

    Args:
        model: As the server calls it.
        template: What is asked.
        parameters: Decoding parameters of the request, as the server knows them; part of every verdict's key.
        seed: Of the fences.
        limits: What the run may use.
        price: USD per million prompt and completion tokens; default: `PRICES` of the model, if it is known.

    Raises:
        UserError: No key, or a cost limit without a price or without a limit on a reply's length.
    """

    def __init__(
        self,
        model: str,
        template: Template,
        *,
        parameters: Mapping[str, Any],
        seed: int = 0,
        limits: Limits = NO_LIMITS,
        price: tuple[float, float] | None = None,
    ) -> None:
        self.name, self.model, self.template = f"openai:{model}", model, template
        self.parameters, self.seed, self.limits = dict(parameters), seed, limits
        self.price = price or PRICES.get(model)
        self.identity: Mapping[str, Any] = {
            "parameters": self.parameters, "template": template.name, "version": template.version,
            "template_digest": template.digest, "seed": seed, "server": _server(),
        }  # fmt: skip
        self.bill = Bill(self.price, limits)
        self._stop: BaseException | None = None
        if limits.max_cost is not None and self.price is None:
            raise UserError(f"--max-cost: the price of {model!r} is not known; pass --price IN,OUT in USD per million tokens")
        if limits.max_cost is not None and self._most_completion_tokens() is None:
            raise UserError("--max-cost: a reply must have a longest length; put max_tokens into --parameters")

    def request(self, question: Question) -> str:
        """The text that is sent."""
        return self.template.fill(question.comparison.prompt, question.a, question.b, seed=self.seed)

    def estimate(self, questions: Sequence[Question]) -> str:
        """Calls, tokens (a fourth of the request's bytes; 60 for a reply) and price, before anything is sent."""
        prompt = sum(round(len(self.request(q).encode()) / BYTES_PER_TOKEN) for q in questions)
        completion = REPLY_TOKENS * len(questions)
        price = f"about {cost_of(prompt, completion, self.price):.2f} USD" if self.price else "price unknown, pass --price"
        return f"{len(questions):,} calls, about {prompt:,} prompt and {completion:,} completion tokens: {price}"

    def answer(
        self,
        questions: Sequence[Question],
        on_answer: Callable[[Question, Answer | Failure], None],
        on_start: Callable[[Question], bool],
    ) -> None:
        """See `suite.judges.judging.Judge`. A first Ctrl-C waits for the requests in flight, whose replies are paid."""
        if not os.environ.get("OPENAI_API_KEY"):
            raise UserError("OPENAI_API_KEY is not set; export it (for a local server any value will do)")
        self._stop = None
        self.bill._settled = asyncio.Condition()
        asyncio.run(self._answer(questions, on_answer, on_start))
        if self._stop is not None:
            raise self._stop

    async def _answer(
        self, questions: Sequence[Question], on_answer: Callable[..., None], on_start: Callable[..., bool]
    ) -> None:
        from openai import AsyncOpenAI

        waiting = iter(questions)

        async def work(client: AsyncOpenAI) -> None:
            for question in waiting:
                if self._stop is not None:
                    return
                if not on_start(question):
                    continue
                try:
                    answer: Answer | Failure = await self._ask(client, question)
                except UserError as error:  # no use going on; the others finish what is in flight
                    self._stop = self._stop or error
                    answer = Failure(str(error))
                on_answer(question, answer)

        with self._ctrl_c_waits():
            async with AsyncOpenAI(max_retries=0, timeout=self.limits.timeout_s) as client:
                await asyncio.gather(*(work(client) for _ in range(self.limits.concurrency)))

    async def _ask(self, client: Any, question: Question) -> Answer | Failure:
        from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

        backoff = wait_exponential_jitter(multiplier=self.limits.backoff_s, max=60, jitter=self.limits.backoff_s)

        def wait(state: Any) -> float:
            asked: float | None = state.outcome.exception().wait_s
            return max(backoff(state), asked or 0.0)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Retryable), stop=stop_after_attempt(self.limits.attempts), wait=wait
        )
        try:
            async for attempt in retrying:
                with attempt:
                    if self._stop is not None:
                        return Failure("stopped")
                    return await self._request(client, question)
        except RetryError as error:
            return Failure(f"{self.limits.attempts} attempts: {error.last_attempt.exception()}")
        raise AssertionError("unreachable")

    async def _request(self, client: Any, question: Question) -> Answer:
        """One request.

        Raises:
            Retryable: It may go better next time.
            UserError: It will not.
        """
        text = self.request(question)
        most = cost_of(len(text.encode()) + OVERHEAD_TOKENS, self._most_completion_tokens() or 0, self.price)
        await self.bill.open(most)
        answer, maybe_paid = None, False
        try:
            messages = [{"role": "user", "content": text}]
            async with asyncio.timeout(self.limits.timeout_s):
                reply = await client.chat.completions.create(model=self.model, messages=messages, **self.parameters)
            answer = self._read(reply)
            return answer
        except UserError:
            raise
        except Exception as error:
            problem = self._problem(error, question)
            maybe_paid = isinstance(problem, Retryable) and problem.maybe_paid
            raise problem from None  # the original holds the request, and with it the key
        finally:
            await self.bill.close(most, answer, maybe_paid=maybe_paid)

    def _read(self, reply: Any) -> Answer:
        choices, usage = getattr(reply, "choices", None), getattr(reply, "usage", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise Retryable("the reply has no choices", maybe_paid=True)
        said = choices[0].message.content or getattr(choices[0].message, "refusal", None) or ""
        served = " ".join(filter(None, (reply.model, getattr(reply, "system_fingerprint", None))))
        tokens = [int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens")]
        verdict = self.template.read(choices[0].message.content or "")
        return Answer(verdict or "invalid", scrub(said), scrub(served), *tokens)

    def _problem(self, error: Exception, question: Question) -> Retryable | UserError:
        """What an exception of the client means for the question."""
        import openai

        if isinstance(error, Retryable):
            return error
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return Retryable(f"no reply within {self.limits.timeout_s:g} s", maybe_paid=True)
        if isinstance(error, openai.APIStatusError):
            status, code = error.status_code, error.code or ""
            said = scrub(" ".join(str(error.message).split()))[:300]
            if status in REFUSED:
                return UserError(f"{self.name} at {_server()}: {REFUSED[status]} ({status})")
            if code == "insufficient_quota":
                return UserError(f"{self.name}: the account has no credit left; verdicts so far are stored")
            if status in (408, 409, 429) or status >= 500:
                return Retryable(f"status {status}", wait_s=_retry_after(error.response.headers))
            if code == "context_length_exceeded" or "context length" in said.lower():
                return UserError(
                    f"{self.name}: prompt {question.comparison.id!r} is longer than the model's context; shorten or drop it"
                )
            if error.param in self.parameters or code in ("unsupported_parameter", "unsupported_value"):
                return UserError(
                    f"{self.name} refuses the parameter {error.param or ''} of {json.dumps(self.parameters)} ({said}); change "
                    f"it with --parameters"
                )
            return UserError(f"{self.name}: the server refuses the request ({status}: {said})")
        if isinstance(error, openai.APIConnectionError):
            return Retryable("the connection broke", maybe_paid=True)
        if isinstance(error, openai.APIResponseValidationError | ValueError | TypeError | AttributeError):
            return Retryable("the reply is not a chat completion", maybe_paid=True)
        return Retryable(type(error).__name__, maybe_paid=True)

    def _most_completion_tokens(self) -> int | None:
        return self.parameters.get("max_completion_tokens", self.parameters.get("max_tokens"))

    @contextmanager
    def _ctrl_c_waits(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self._stop = KeyboardInterrupt()
            loop.remove_signal_handler(signal.SIGINT)  # a second one stops at once

        with suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread, or no such signals here
            loop.add_signal_handler(signal.SIGINT, stop)
        try:
            yield
        finally:
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(signal.SIGINT)


def cost_of(prompt_tokens: int, completion_tokens: int, price: tuple[float, float] | None) -> float:
    """USD; 0 where no price is known."""
    return 0.0 if price is None else (prompt_tokens * price[0] + completion_tokens * price[1]) / 1e6


def scrub(text: str) -> str:
    """`text` without the key, whoever put it there."""
    key = os.environ.get("OPENAI_API_KEY", "")
    return text.replace(key, "[key]") if key else text


def _server() -> str:
    """Address without credentials or query."""
    parts = urlsplit(os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after`; at most two minutes."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with suppress(ValueError):
            if name in headers:
                return min(max(float(headers[name]) / unit, 0.0), 120.0)
    return None
