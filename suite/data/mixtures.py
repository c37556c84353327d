"""Examples of several domains in given shares."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from suite.common.errors import UserError


class OfADomain(Protocol):
    """What says which kind of preference it is."""

    @property
    def domain(self) -> str: ...


T = TypeVar("T", bound=OfADomain)


def quotas(shares: Mapping[str, float], count: int) -> dict[str, int]:
    """How many of `count` each share is: whole numbers that sum to it, the largest remainders rounded up."""
    exact = {name: share * count for name, share in shares.items()}
    found = {name: int(number + 1e-9) for name, number in exact.items()}
    by_remainder = sorted(exact, key=lambda name: found[name] - exact[name])
    for name in by_remainder[: count - sum(found.values())]:
        found[name] += 1
    return found


def in_shares(examples: Sequence[T], shares: Mapping[str, float]) -> list[T]:
    """The first of every domain, in these shares (domain → share, together 1), as many as the scarcest domain allows.

    Raises:
        UserError: A domain whose share is not 0 has none, or there are too few examples for all shares.
    """
    there = Counter(example.domain for example in examples)
    for name, share in shares.items():
        if share > 0 and not there[name]:
            raise UserError(f"--weights: nothing usable of {name}, whose weight is {share:g}; leave it out, or mend its rows")
    most = next(n for n in range(len(examples), -1, -1) if all(there[k] >= of for k, of in quotas(shares, n).items()))
    room, kept = quotas(shares, most), list[T]()
    if lost := [name for name, share in shares.items() if share > 0 and not room[name]]:
        raise UserError(
            f"--weights: {len(examples)} examples are too few for the weight {shares[lost[0]]:g} of {lost[0]}; give more rows"
        )
    for example in examples:
        if room.get(example.domain, 0) > 0:
            room[example.domain] -= 1
            kept.append(example)
    return kept
