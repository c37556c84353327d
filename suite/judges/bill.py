"""What a run of an OpenAI judge may use and has used: calls, tokens, money."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from suite.common.errors import UserError
from suite.data.comparisons import Answer

PRICES = {
    "gpt-4o": (2.5, 10.0), "gpt-4o-mini": (0.15, 0.6), "gpt-4.1": (2.0, 8.0), "gpt-4.1-mini": (0.4, 1.6), "gpt-4": (30.0, 60.0),
}  # fmt: skip
"""USD per million prompt and completion tokens, OpenAI's list prices of 2025; check yours and pass --price."""


@dataclass(frozen=True)
class Limits:
    """What a run may use. Raises UserError if a value is out of range."""

    max_calls: int | None = None  # requests, retries included
    max_cost: float | None = None  # USD; a request is only sent if the bill stays below this even if it is as long as it can be
    concurrency: int = 8  # requests at once
    attempts: int = 6  # requests per question before it counts as failed
    timeout_s: float = 60.0  # for a whole reply, however slowly it drips
    backoff_s: float = 1.0
    """First wait of an exponential backoff with jitter, at most 60 s; a server's Retry-After is honoured, up to ten minutes."""

    def __post_init__(self) -> None:
        for name, least in (("max_calls", 0), ("max_cost", 0), ("concurrency", 1), ("attempts", 1)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UserError(f"--{name.replace('_', '-')} {value}: expected {least} or more")
        if not 0 < self.timeout_s < math.inf:
            raise UserError(f"--timeout {self.timeout_s:g}: expected more than 0 seconds")


NO_LIMITS = Limits()
GO_ON = "verdicts so far are stored, the same command goes on with a new budget"


class Stopped(Exception):
    """The run ends; what is not sent yet is not sent."""


@dataclass
class Bill:
    """What was used, and what requests in flight may still cost. USD where a price is known, else 0. Raises UserError if the
    price is none.
    """

    price: tuple[float, float] | None
    limits: Limits
    calls: int = 0  # requests sent
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # paid for replies; for requests that may have been paid without one, the most they can have cost
    maybe_paid: int = 0  # requests without a usable reply that the server may charge all the same (timeouts, resets)
    settled: asyncio.Condition = field(default_factory=asyncio.Condition)  # wakes those who wait for money; of one event loop
    _in_flight: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if any(not 0 <= price < math.inf for price in self.price or ()):
            raise UserError(f"--price {' '.join(f'{price:g}' for price in self.price or ())}: expected numbers of 0 or more")

    def __str__(self) -> str:
        return (
            f"{self.calls:,} calls, {self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
            + (f", at most {self.cost:.4f} USD" if self.price else "")
            + (f"; {self.maybe_paid} calls without a usable reply may be charged" if self.maybe_paid else "")
        )

    async def open(self, most: float, stopped: Callable[[], bool]) -> None:
        """Reserve `most` USD for a request; raises UserError if it could pass a limit, and Stopped if the run ends."""
        async with self.settled:
            while not stopped() and self._in_flight and self._passes(sum(self._in_flight) + most):
                await self.settled.wait()  # those in flight may turn out cheaper
            if stopped():
                raise Stopped
            if self._passes(most):
                raise UserError(
                    f"--max-cost {self.limits.max_cost:g} of this run would be passed: {self.cost:.4f} USD are spent and the "
                    f"next request may cost {most:.4f}; {GO_ON}"
                )
            if self.limits.max_calls is not None and self.calls >= self.limits.max_calls:
                raise UserError(f"--max-calls {self.limits.max_calls} of this run is reached; {GO_ON}")
            self.calls += 1
            self._in_flight.append(most)

    def _passes(self, more: float) -> bool:
        return self.limits.max_cost is not None and self.cost + more > self.limits.max_cost

    async def close(self, most: float, answer: Answer | None, *, maybe_paid: bool = False) -> None:
        """Replace the reservation by what was paid."""
        async with self.settled:
            self._in_flight.remove(most)
            self.maybe_paid += maybe_paid
            if answer is not None and answer.prompt_tokens:
                self.prompt_tokens += answer.prompt_tokens
                self.completion_tokens += answer.completion_tokens
                self.cost += cost_of(answer.prompt_tokens, answer.completion_tokens, self.price)
            elif answer is not None or maybe_paid:
                self.cost += most
            self.settled.notify_all()


def cost_of(prompt_tokens: int, completion_tokens: int, price: tuple[float, float] | None) -> float:
    """USD; 0 where no price is known."""
    return 0.0 if price is None else (prompt_tokens * price[0] + completion_tokens * price[1]) / 1e6
