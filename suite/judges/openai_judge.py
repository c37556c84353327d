"""A model behind the OpenAI chat protocol: bounded in calls, cost and concurrency, retried, never paid for twice knowingly."""

import asyncio
import json
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from suite.common.errors import UserError
from suite.data.comparisons import Answer, Failure, Question
from suite.judges.bill import NO_LIMITS, PRICES, Bill, Limits, Stopped, cost_of
from suite.judges.judging import ContextTooShort, OnAnswer, OnStart, clean
from suite.judges.templates import Template

DEFAULT_URL = "https://api.openai.com/v1"
OVERHEAD_TOKENS = 64
BYTES_PER_TOKEN = 4.0
REPLY_TOKENS = 60
LONGEST_WAIT_S = 600.0
REFUSED = {401: "the key is not accepted", 403: "the key may not use this model", 404: "there is no such model or address"}
OURS = {"model", "messages", "stream", "n", "timeout", "extra_body", "extra_headers", "extra_query"}


class Retryable(Exception):
    """No usable reply this time."""

    def __init__(self, reason: str, *, wait_s: float = 0.0, maybe_paid: bool = False, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.wait_s, self.maybe_paid, self.unreachable = wait_s, maybe_paid, unreachable


class OpenAIJudge:
    """Asks `model` at OPENAI_BASE_URL (OpenAI's own if unset) with the key in OPENAI_API_KEY.

    Args:
        model, template: As the server calls it, and what it is asked.
        parameters: Decoding parameters of the request, as the server knows them; part of every verdict's key.
        seed: Of the fences.
        limits: What the run may use.
        price: USD per million prompt and completion tokens; default: `PRICES` of the model, if it is known.

    Raises:
        UserError: A parameter that cannot be set, a bad address, or a cost limit without a price or a longest reply.
    """

    def __init__(
        self, model: str, template: Template, *, parameters: Mapping[str, Any], seed: int = 0, limits: Limits = NO_LIMITS,
        price: tuple[float, float] | None = None,
    ) -> None:  # fmt: skip
        if taken := OURS & parameters.keys():
            raise UserError(f"--parameters: {', '.join(sorted(taken))} cannot be set")
        self.name, self.model, self.template = f"openai:{model}", model, template
        self.parameters, self.seed, self.limits = dict(parameters), seed, limits
        self.server = _server()
        self.identity: Mapping[str, Any] = {
            "parameters": self.parameters, **template.identity, "seed": seed, "server": self.server,
        }  # fmt: skip
        self.bill = Bill(price or PRICES.get(model), limits)
        self._stop: BaseException | None = None
        self._stopped = asyncio.Event()
        longest = self.parameters.get("max_completion_tokens", self.parameters.get("max_tokens"))
        if limits.max_cost is not None and self.bill.price is None:
            raise UserError(f"--max-cost: the price of {model!r} is not known; pass --price IN OUT in USD per million tokens")
        if limits.max_cost is not None and not (isinstance(longest, int) and longest > 0):
            raise UserError("--max-cost: a reply must have a longest length; put max_tokens, a whole number, into --parameters")
        self.longest_reply = longest if isinstance(longest, int) else 0

    def request(self, question: Question) -> str:
        """The text that is sent."""
        return clean(self.template.fill(question.comparison.prompt, question.a, question.b, seed=self.seed))

    def estimate(self, questions: Sequence[Question]) -> str:
        """Calls, tokens (a fourth of the request's bytes; 60 for a reply) and price, before anything is sent."""
        prompt = sum(round(len(self.request(q).encode()) / BYTES_PER_TOKEN) for q in questions)
        completion = REPLY_TOKENS * len(questions)
        known = self.bill.price
        price = f"about {cost_of(prompt, completion, known):.2f} USD" if known else "price unknown, pass --price IN OUT"
        return f"{len(questions):,} calls, about {prompt:,} prompt and {completion:,} completion tokens: {price}"

    def answer(self, questions: Sequence[Question], on_answer: OnAnswer, on_start: OnStart) -> None:
        """See `suite.interfaces.Judge`. A first Ctrl-C waits for the requests in flight, whose replies are paid."""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key or not key.isascii():
            raise UserError("OPENAI_API_KEY is not set, or not a key; export it (for a local server any word will do)")
        self._stop, self._stopped, self.bill.settled = None, asyncio.Event(), asyncio.Condition()  # of the loop that begins
        asyncio.run(self._answer(key, questions, on_answer, on_start))
        if self._stop is not None:
            raise self._stop

    async def _answer(self, key: str, questions: Sequence[Question], on_answer: OnAnswer, on_start: OnStart) -> None:
        from openai import AsyncOpenAI

        waiting = iter(questions)

        async def work(client: AsyncOpenAI) -> None:
            for question in waiting:
                if self._stop is not None or not on_start(question):
                    continue
                answer: Answer | Failure = Failure("stopped")
                try:
                    answer = await self._ask(client, question)
                except Stopped:
                    pass
                except UserError as error:  # no use going on; the others finish what is in flight
                    answer = Failure(str(error))
                    await self._end(error)
                try:
                    on_answer(question, answer)
                except Exception as error:  # a full disk: the others still hand over what they are paid for
                    await self._end(error)

        with self._ctrl_c_waits():
            async with AsyncOpenAI(api_key=key, max_retries=0, timeout=self.limits.timeout_s) as client:
                await asyncio.gather(*(work(client) for _ in range(self.limits.concurrency)))

    async def _end(self, reason: BaseException) -> None:
        """Send nothing more; those that wait for money or for their next attempt wake up."""
        self._stop = self._stop or reason
        self._stopped.set()
        async with self.bill.settled:
            self.bill.settled.notify_all()

    async def _ask(self, client: Any, question: Question) -> Answer | Failure:
        from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

        backoff = wait_exponential_jitter(multiplier=self.limits.backoff_s, max=60, jitter=self.limits.backoff_s)

        def wait(state: Any) -> float:
            return max(backoff(state), state.outcome.exception().wait_s)

        async def sleep(seconds: float) -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Retryable), stop=stop_after_attempt(self.limits.attempts), wait=wait, sleep=sleep
        )
        try:
            return await retrying(self._request, client, question)
        except RetryError as error:
            problem = error.last_attempt.exception()
        if isinstance(problem, Retryable) and problem.unreachable:
            raise UserError(f"{self.name}: {self.server} cannot be reached; is OPENAI_BASE_URL right and the server up?")
        return Failure(f"{self.limits.attempts} attempts: {problem}")

    async def _request(self, client: Any, question: Question) -> Answer:
        """One request. Raises Retryable if it may go better next time, UserError if not, and Stopped if the run ends."""
        text = self.request(question)
        most = cost_of(len(text.encode()) + OVERHEAD_TOKENS, self.longest_reply, self.bill.price)
        await self.bill.open(most, lambda: self._stop is not None)
        answer, problem = None, None
        try:
            messages = [{"role": "user", "content": text}]
            async with asyncio.timeout(self.limits.timeout_s):
                reply = await client.chat.completions.create(model=self.model, messages=messages, extra_body=self.parameters)
            answer = self._read(reply)
        except Exception as error:  # kept apart: it holds the request, and with it the key
            problem = self._problem(error, question)
        finally:
            await self.bill.close(most, answer, maybe_paid=isinstance(problem, Retryable) and problem.maybe_paid)
        if answer is None:
            raise problem or Retryable("no reply")
        return answer

    def _read(self, reply: Any) -> Answer:
        choices, usage = getattr(reply, "choices", None), getattr(reply, "usage", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise Retryable("the reply has no choices", maybe_paid=True)
        said = choices[0].message.content or ""
        whole = getattr(choices[0], "finish_reason", None) not in ("length", "content_filter")
        verdict = self.template.read(said) if whole else None  # a reply that was cut has no last line
        served = " ".join(filter(None, (reply.model, getattr(reply, "system_fingerprint", None))))
        tokens = [int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens")]
        shown = said or getattr(choices[0].message, "refusal", None) or ""
        return Answer(verdict or "invalid", scrub(clean(shown)), scrub(clean(served)), *tokens)

    def _problem(self, error: Exception, question: Question) -> Retryable | UserError:
        """What an exception of the client means for the question."""
        import openai

        if isinstance(error, Retryable):
            return error
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return Retryable(f"no reply within {self.limits.timeout_s:g} s", maybe_paid=True)
        if isinstance(error, openai.APIStatusError):
            return self._of_status(error, question)
        if isinstance(error, openai.APIConnectionError):
            unreachable = "ConnectError" in type(error.__cause__).__name__
            return Retryable("the connection broke", maybe_paid=not unreachable, unreachable=unreachable)
        if isinstance(error, openai.APIResponseValidationError | json.JSONDecodeError | AttributeError | UnicodeDecodeError):
            return Retryable("the reply is not a chat completion", maybe_paid=True)
        said = scrub(" ".join(str(error).split()))[:200]
        return UserError(f"{self.name}: the request cannot be made ({type(error).__name__}: {said})")

    def _of_status(self, error: Any, question: Question) -> Retryable | UserError:
        status, code = error.status_code, error.code or ""
        said = scrub(" ".join(str(error.message).split()))[:300]
        if status in REFUSED:
            return UserError(f"{self.name} at {self.server}: {REFUSED[status]} ({status})")
        if code == "insufficient_quota":
            return UserError(f"{self.name}: the account has no credit left; verdicts so far are stored")
        if status in (408, 409, 429) or status >= 500:
            return Retryable(f"status {status}", wait_s=retry_after(error.response.headers) or 0.0)
        if code == "context_length_exceeded" or "context length" in said.lower():
            return ContextTooShort(
                f"{self.name}: prompt {question.comparison.id!r} is longer than the model's context; shorten or drop it"
            )
        if error.param in self.parameters or code in ("unsupported_parameter", "unsupported_value"):
            return UserError(
                f"{self.name} refuses the parameter {error.param or ''} of {json.dumps(self.parameters)} ({said}); change "
                f"it with --parameters"
            )
        return UserError(f"{self.name}: the server refuses the request ({status}: {said})")

    @contextmanager
    def _ctrl_c_waits(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        endings = []

        def stop() -> None:
            print("\nstopping: waiting for the replies in flight, which are paid; Ctrl-C again to drop them")
            endings.append(loop.create_task(self._end(KeyboardInterrupt())))
            loop.remove_signal_handler(signal.SIGINT)  # a second one stops at once

        with suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread, or no such signals here
            loop.add_signal_handler(signal.SIGINT, stop)
        try:
            yield
        finally:
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(signal.SIGINT)


def scrub(text: str) -> str:
    """`text` without the key, whoever put it there; keys of local servers may be any short word and are no secret."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    return text.replace(key, "[key]") if len(key) >= 8 else text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after` (a number or a date); at most ten minutes. None if it says nothing."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        said = headers.get(name, "")
        try:
            seconds = float(said) / unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(said).timestamp() - time.time()
            except ValueError:
                continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), LONGEST_WAIT_S)
    return None


def _server() -> str:
    """Address without credentials, query or slash at the end."""
    given = os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError("OPENAI_BASE_URL: expected an address like http://localhost:8000/v1")
    return f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
