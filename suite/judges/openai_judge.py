"""A model behind the OpenAI chat protocol: bounded in calls, cost and concurrency, retried, never paid for twice knowingly."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from suite.common.errors import UserError
from suite.data.comparisons import Answer, Failure, Question
from suite.judges.bill import NO_LIMITS, PRICES, Bill, Limits, Stopped, cost_of
from suite.judges.judging import OnAnswer, OnStart, clean, shown
from suite.judges.replies import NoCompletion, ServerError, read_error, read_json, read_reply, scrub, tokens
from suite.judges.server import longest_reply, retry_after, server_address
from suite.judges.templates import Template

OVERHEAD_TOKENS = 64
BYTES_PER_TOKEN = 4.0
REPLY_TOKENS = 60
LONGEST_REPLY = 200_000
"""Tokens that are counted for a reply without a longest length where the server reports an impossible number."""
MOST_BYTES = 2_000_000
REFUSED = {401: "the key is not accepted", 403: "the key may not use this model", 404: "there is no such model or address"}
OF_THE_PROMPT = re.compile(
    r"content.?(filter|polic|management)|moderation|flagged|(?P<context>context.?(length|window|size)|too long)", re.I
)
"""What servers say where one prompt is refused and the next may be answered."""
STATUS_OF_WORDS = (
    (402, re.compile(r"credit|quota|billing|balance|payment", re.I)), (401, re.compile(r"api.?key|unauthori|authentic", re.I)),
    (429, re.compile(r"rate.?limit|too many requests|overloaded", re.I)),
)  # fmt: skip
"""What is wrong where a server sends an error as if all were well."""
OURS = {"model", "messages", "stream", "n", "timeout", "extra_body", "extra_headers", "extra_query"}


class Retryable(Exception):
    """No usable reply this time."""

    def __init__(self, reason: str, *, wait_s: float = 0.0, maybe_paid: bool = False, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.wait_s, self.maybe_paid, self.unreachable = wait_s, maybe_paid, unreachable


class Refused(Exception):
    """This question is refused, and would be again; others may be answered."""

    def __init__(self, reason: str, *, of_the_prompt: bool) -> None:
        super().__init__(reason)
        self.of_the_prompt = of_the_prompt


class OpenAIJudge:
    """Asks `model` at OPENAI_BASE_URL (OpenAI's own if unset) with the key in OPENAI_API_KEY.

    Args:
        model, template: As the server calls it, and what it is asked.
        parameters: Decoding parameters of the request, as the server knows them; part of every verdict's key.
        seed: Of the fences.
        limits: What the run may use.
        price: USD per million prompt and completion tokens; default: `PRICES` of the model, if it is known.

    Raises:
        UserError: A parameter that cannot be set, a bad address or price, or a cost limit without a price or a longest reply.
    """

    def __init__(
        self, model: str, template: Template, *, parameters: Mapping[str, Any], seed: int = 0, limits: Limits = NO_LIMITS,
        price: tuple[float, float] | None = None,
    ) -> None:  # fmt: skip
        if taken := OURS & parameters.keys():
            raise UserError(f"--parameters: {', '.join(sorted(taken))} cannot be set")
        self.longest_reply = longest_reply(parameters)
        self.name, self.model, self.template = f"openai:{model}", model, template
        self._shown = shown(self.name)
        self.parameters, self.seed, self.limits = dict(parameters), seed, limits
        self.server = server_address()
        self.identity: Mapping[str, Any] = {
            "parameters": self.parameters, **template.identity, "seed": seed, "server": self.server,
        }  # fmt: skip
        self.bill = Bill(price or PRICES.get(model), limits)
        self._stop: BaseException | None = None
        self._stopped = asyncio.Event()
        if limits.max_cost is not None and self.bill.price is None:
            raise UserError(
                f"--max-cost: the price of {shown(model)!r} is not known; pass --price IN OUT in USD per million tokens"
            )
        if limits.max_cost is not None and not self.longest_reply:
            raise UserError("--max-cost: a reply must have a longest length; put max_tokens, a whole number, into --parameters")

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
        if not key.isascii() or not key.isprintable():
            raise UserError("OPENAI_API_KEY is not a key: it holds a line break or a letter that no key has; export it again")
        if not key:
            raise UserError("OPENAI_API_KEY is not set; export it (for a local server any word will do)")
        self._stop, self._stopped, self.bill.settled = None, asyncio.Event(), asyncio.Condition()  # of the loop that begins
        asyncio.run(self._answer(key, questions, on_answer, on_start))
        if self._stop is not None:
            raise self._stop

    async def _answer(self, key: str, questions: Sequence[Question], on_answer: OnAnswer, on_start: OnStart) -> None:
        waiting = iter(questions)

        async def work(client: Any) -> None:
            for question in waiting:
                if self._stop is not None:
                    return
                try:
                    if on_start(question):
                        on_answer(question, await self._settle(client, question))
                except Exception as error:  # a full disk: the others still hand over what they are paid for
                    await self._end(error)

        with self._ctrl_c_waits():
            async with self._client(key) as client:
                await asyncio.gather(*(work(client) for _ in range(self.limits.concurrency)))

    def _client(self, key: str) -> Any:
        """Sends to the one host only, and reads no more than a reply can be. Raises UserError if the environment is no good."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        try:
            http = DefaultAsyncHttpxClient(timeout=self.limits.timeout_s)
            plain = {"Accept-Encoding": "identity"}
            client = AsyncOpenAI(
                api_key=key, max_retries=0, timeout=self.limits.timeout_s, http_client=http, default_headers=plain
            )
        except Exception as error:  # proxies and certificates of the environment
            said = shown(re.sub(r"//[^/@\s]*@", "//", scrub(str(error))))
            raise UserError(
                f"{self._shown}: no connection can be made ({type(error).__name__}: {said}); look at ALL_PROXY, HTTP_PROXY, "
                f"HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
            ) from None
        first = client.base_url

        async def stay(request: Any) -> None:
            if request.url.host != first.host or (first.scheme == "https" and request.url.scheme != "https"):
                raise UserError(
                    f"{self._shown}: {self.server} redirects to {shown(request.url.host)}, where nothing is sent; set "
                    f"OPENAI_BASE_URL to the address that is meant"
                )

        http.event_hooks = {"request": [stay], "response": [_read_bounded]}
        return client

    async def _settle(self, client: Any, question: Question) -> Answer | Failure:
        """What `_ask` says; what ends the run is kept, and the question is handed back all the same."""
        try:
            return await self._ask(client, question)
        except Stopped:
            return Failure("stopped")
        except Exception as error:  # no use going on; the others finish what is in flight
            await self._end(error)
            return Failure(str(error))

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
        except Refused as refused:
            return Failure(str(refused), refused=not refused.of_the_prompt)
        except RetryError as error:
            problem = error.last_attempt.exception()
        if isinstance(problem, Retryable) and problem.unreachable:
            raise UserError(f"{self._shown}: {self.server} cannot be reached; is OPENAI_BASE_URL right and the server up?")
        return Failure(f"{self.limits.attempts} attempts: {problem}")

    async def _request(self, client: Any, question: Question) -> Answer:
        """One request. Raises Retryable if it may go better next time, Refused or UserError if not, Stopped if the run ends."""
        text = self.request(question)
        longest = len(text.encode()) + OVERHEAD_TOKENS
        most = cost_of(longest, self.longest_reply, self.bill.price)
        await self.bill.open(most, lambda: self._stop is not None)
        answer, problem = None, None
        try:
            messages, create = [{"role": "user", "content": text}], client.chat.completions.with_raw_response.create
            async with asyncio.timeout(self.limits.timeout_s):
                raw = await create(model=self.model, messages=messages, extra_body=self.parameters)
            answer = self._read(raw.http_response.content, longest)
        except Exception as error:  # kept apart: it holds the request, and with it the key
            problem = self._problem(error)
        finally:
            await self.bill.close(most, answer, maybe_paid=isinstance(problem, Retryable) and problem.maybe_paid)
        if answer is None:
            raise problem or Retryable("no reply")
        return answer

    def _read(self, body: bytes, longest: int) -> Answer:
        """The answer in the body of a reply to a request of at most `longest` tokens."""
        found = read_json(body)
        if found.get("error") and not found.get("choices"):
            error = read_error(found)
            said = f"{error.code} {error.message}"
            status = int(error.code) if re.fullmatch(r"[45]\d\d", error.code, re.ASCII) else 0
            raise self._of_status(status or next((code for code, words in STATUS_OF_WORDS if words.search(said)), 400), error)
        reply = read_reply(found)
        verdict = self.template.read(reply.text) if reply.whole else None  # a reply that was cut has no last line
        used = (0, 0)  # the server does not count; the bill takes what it can be
        if reply.usage.get("prompt_tokens") is not None:
            most = self.longest_reply or LONGEST_REPLY
            used = (
                tokens(reply.usage["prompt_tokens"], least=1, most=longest),
                tokens(reply.usage.get("completion_tokens"), least=int(bool(reply.text)), most=most),
            )
        return Answer(verdict or "invalid", reply.text or reply.refusal, reply.served, *used)

    def _problem(self, error: Exception) -> Exception:
        """What an exception of the client means for the question: Retryable, Refused or UserError."""
        import openai

        if isinstance(error, Retryable | Refused | UserError):
            return error
        if isinstance(error, NoCompletion):
            return Retryable(str(error), maybe_paid=True)
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return Retryable(f"no reply within {self.limits.timeout_s:g} s", maybe_paid=True)
        if isinstance(error, openai.APIStatusError):
            try:
                said = read_error(read_json(error.response.content))
            except NoCompletion:
                said = read_error(error.response.text)
            return self._of_status(error.status_code, said, retry_after(error.response.headers) or 0.0)
        if isinstance(error, openai.APIConnectionError):
            unreachable = "ConnectError" in type(error.__cause__).__name__
            return Retryable("the connection broke", maybe_paid=not unreachable, unreachable=unreachable)
        if isinstance(error, openai.APIResponseValidationError | AttributeError | UnicodeDecodeError):
            return Retryable("the reply is not a chat completion", maybe_paid=True)
        return UserError(f"{self._shown}: the request cannot be made ({type(error).__name__}: {shown(scrub(str(error)))})")

    def _of_status(self, status: int, error: ServerError, wait_s: float = 0.0) -> Exception:
        """What an error of the server means for the question, as `_problem`."""
        said = f"{status}: {error.message}" if error.message else f"{status}"
        of_the_prompt = OF_THE_PROMPT.search(f"{error.code} {error.message}")
        if status == 402 or error.code == "insufficient_quota":
            return UserError(f"{self._shown}: the account has no credit left ({said}); verdicts so far are stored")
        if status in (400, 403, 413, 422) and of_the_prompt:
            longer = of_the_prompt["context"] is not None
            words = "the prompt is longer than the model's context" if longer else "the server refuses the prompt"
            return Refused(f"{words} ({said})", of_the_prompt=True)
        if status in REFUSED:
            return UserError(f"{self._shown} at {self.server}: {REFUSED[status]} ({said})")
        if status in (408, 409, 425, 429) or status >= 500:
            return Retryable(f"status {said}", wait_s=wait_s)
        if error.param in self.parameters or error.code in ("unsupported_parameter", "unsupported_value"):
            return UserError(
                f"{self._shown} refuses the parameter {error.param} of {shown(json.dumps(self.parameters))} ({said}); change "
                f"it with --parameters"
            )
        if status in (400, 413, 422):
            return Refused(f"the server refuses the request ({said})", of_the_prompt=status == 413)
        return UserError(f"{self._shown}: the server refuses the request ({said})")

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


async def _read_bounded(response: Any) -> None:
    """Read the body, decompressed, up to what a reply can be; the client takes it from there."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Retryable(f"the reply is longer than {MOST_BYTES // 10**6} MB", maybe_paid=True)
    response._content = bytes(body)
