"""Made-up rows in the formats of the real data sets, to try the pipeline without a network. Results on them mean nothing."""

from collections.abc import Callable, Iterable
from itertools import product

WHO = ("my sister", "my boss", "a friend", "my neighbour", "my flatmate", "our landlord", "my uncle", "a colleague")
WHAT = ("a bicycle", "the old piano", "two cats", "a guitar", "the big tent", "some books", "a lamp", "the kayak")
WHEN = ("last week", "in May", "on Friday", "yesterday")
HOW = {
    "bake bread": "Mix flour, water, salt and yeast, let it rise for an hour, then bake it hot.",
    "plant tomatoes": "Wait until the frost is over, choose a sunny place and water them often.",
    "learn chess": "Start with the moves, play short games and look at your mistakes afterwards.",
    "mend a tyre": "Take the tube out, find the hole, roughen it, glue a patch on and wait.",
    "write a letter": "Say first why you write, then the facts, then what you hope for.",
    "clean a window": "Use warm water with a drop of soap and dry it with a cloth.",
    "save money": "Write down what you spend for a month, then decide what you can miss.",
    "sleep better": "Go to bed at the same time every day and leave the phone outside.",
}
ASK = ("How do I {}?", "Can you tell me how to {}?", "I want to {}. Any advice?", "What is the best way to {}?")
BAD = ("No idea.", "Why would you want that?", "Look it up yourself, please.", "That is boring.")
TOWN = ("Norhaven", "Elmstead", "Port Avery", "Kilden", "Marrow Bay", "Westlow", "Tarn", "Highfield")
THING = ("a bridge", "a library", "a swimming pool", "a tram line", "a park", "a market hall", "a school", "a museum")


def comparisons() -> Iterable[dict[str, str]]:
    """Posts with a good and a bad summary: `prompt`, `chosen`, `rejected`."""
    for who, what, when in product(WHO, WHAT, WHEN):
        post = (
            f"TITLE: Should I ask for it back?\n\nPOST: {who.capitalize()} borrowed {what} from me {when}. We agreed on two "
            f"days. Now I need {what} again and nobody answers my calls. I do not want a quarrel."
        )
        yield {
            "prompt": post, "chosen": f"TL;DR: {who} borrowed {what} {when} and does not return it; how do I ask?",
            "rejected": "TL;DR: I do not want a quarrel with anybody about anything.",
        }  # fmt: skip


def dialogues() -> Iterable[dict[str, str]]:
    """Whole dialogues of one or two turns: `chosen`, `rejected`."""
    for (task, answer), ask, bad, again in product(HOW.items(), ASK, BAD, (False, True)):
        before = "\n\nHuman: Hello!\n\nAssistant: Hello, what can I do for you?" if again else ""
        prompt = f"{before}\n\nHuman: {ask.format(task)}\n\nAssistant:"
        yield {"chosen": f"{prompt} {answer}", "rejected": f"{prompt} {bad}"}


def news() -> Iterable[dict[str, str]]:
    """Articles with highlights: `article`, `highlights`."""
    for town, thing, when in product(TOWN, THING, WHEN):
        article = (
            f"The council of {town} decided {when} to build {thing}. It will cost four million and be paid for over ten years. "
            f"Some citizens would rather have seen the roads repaired. Work is to begin in spring."
        )
        yield {"article": article, "highlights": f"{town} will build {thing} for four million. Some wanted roads instead."}


ROWS: dict[str, Callable[[], Iterable[dict[str, str]]]] = {
    "tldr_summarization": comparisons, "hh_dialogue": dialogues, "cnn_dm_transfer": news,
}  # fmt: skip
