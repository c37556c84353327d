"""Ghost Attention by hand: where the instruction stands, which tokens are in the loss, what a policy is asked turn by turn."""

import pytest
import torch

from suite.check.exact_world import word_tokenizer
from suite.data.batching import collate
from suite.data.instructions import Instruction
from suite.data.preference_data import Completion
from suite.policies.causal_lm import CausalLMPolicy
from suite.tasks.ghost_attention import Conversation, converse, example_of, instructed, messages_of, prompt_of

WORDS = ["<eos>", "Human:", "Assistant:", "shout", "hi", "bye", "HO", "HE", "low", "<user>", "<bot>", "<end>"]
ID = {word: number for number, word in enumerate(WORDS)}
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} <end> {% else %}<bot> {{ m.content }} <end>"
    "{{ ' ' if not loop.last }}{% endif %}{% endfor %}{% if add_generation_prompt %}<bot> {% endif %}"
)
SHOUT = Instruction("shout", "capitals")
TWO = Conversation("dialogue-1", SHOUT, ("hi", "bye"), ("HO", "HE"), (False, False))


@pytest.fixture
def words():
    return word_tokenizer(WORDS)


@pytest.fixture
def chat():
    found = word_tokenizer(WORDS)
    found.add_special_tokens({"additional_special_tokens": ["<user>", "<bot>", "<end>"]})
    found.chat_template = TEMPLATE
    return found


def ids(text):
    return tuple(ID[word] for word in text.split())


def test_the_instruction_stands_in_every_user_turn_in_the_first_or_in_none():
    assert instructed("Shout.", ("a", "b", "c"), "every") == ("Shout.\n\na", "Shout.\n\nb", "Shout.\n\nc")
    assert instructed("Shout.", ("a", "b", "c"), "first") == ("Shout.\n\na", "b", "c")
    assert instructed("Shout.", ("a", "b", "c"), "none") == ("a", "b", "c")


def test_messages_end_with_the_turn_to_be_answered_or_the_last():
    asked = Conversation("d", SHOUT, ("hi", "bye"), ("HO",), (False,))
    assert messages_of(asked, "first") == (("user", "shout\n\nhi"), ("assistant", "HO"), ("user", "bye"))
    assert messages_of(asked, "every")[-1] == ("user", "shout\n\nbye")
    assert messages_of(Conversation("d", SHOUT, ("hi", "bye")), "first") == (("user", "shout\n\nhi"),)


def test_a_kept_instruction_is_that_of_the_turn():
    talk = Conversation("d", SHOUT, ("a", "b", "c"), ("HO", "low", ""), (False, False, False))
    assert [talk.kept(turn) for turn in range(3)] == [True, False, False]
    short = Conversation("d", Instruction("Be brief.", "at_most_words", 2), ("a", "b"), ("HO", "HO"), (False, True))
    assert [short.kept(turn) for turn in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("tokenizer", "placement", "prompt", "answer"),
    [
        ("words", "first", "Human: shout hi Assistant: HO Human: bye Assistant:", "HE <eos>"),
        ("words", "every", "Human: shout hi Assistant: HO Human: shout bye Assistant:", "HE <eos>"),
        ("chat", "first", "<user> shout hi <end> <bot> HO <end> <user> bye <end> <bot>", "HE <end>"),
        ("chat", "every", "<user> shout hi <end> <bot> HO <end> <user> shout bye <end> <bot>", "HE <end>"),
    ],
)
def test_exactly_the_last_answer_and_its_end_are_in_the_loss(tokenizer, placement, prompt, answer, request):
    made = example_of(TWO, placement, request.getfixturevalue(tokenizer), 8)
    assert made.prompt.ids == ids(prompt)
    batch = collate([made])
    assert tuple(batch.input_ids[0].tolist()) == ids(f"{prompt} {answer}")
    in_loss = batch.input_ids[batch.completion_mask].tolist()
    assert tuple(in_loss) == ids(answer)
    assert int(batch.completion_mask[0, : len(made.prompt.ids)].sum()) == 0


@pytest.mark.parametrize("tokenizer", ["words", "chat"])
def test_an_answer_that_was_cut_has_no_end_in_the_loss_either(tokenizer, request):
    cut = Conversation("d", SHOUT, ("hi", "bye"), ("HO", "HE HO"), (False, True))
    for limit in (2, 8):
        made = example_of(cut, "first", request.getfixturevalue(tokenizer), limit)
        assert made.ids == ids("HE HO")
        assert made.truncated


def test_one_dialogue_has_one_name_per_turn_wherever_the_instruction_stands(words):
    names = {prompt_of(TWO, placement, words).id for placement in ("every", "first", "none")}
    assert names == {"dialogue-1-turn2"}
    assert prompt_of(Conversation("dialogue-1", SHOUT, ("hi", "bye")), "first", words).id == "dialogue-1-turn1"


class Parrot:
    """Answers from a list, and keeps what it was asked."""

    def __init__(self, tokenizer, *answers):
        self.tokenizer, self.answers, self.asked = tokenizer, list(answers), []

    def sample(self, prompts, *, num_samples, max_new_tokens, temperature, seed, on_batch=None):
        self.asked.append([" ".join(prompt.text.split()) for prompt in prompts])
        said = self.answers.pop(0)
        return [[Completion(prompt, (0,), text, cut)] for prompt, (text, cut) in zip(prompts, said, strict=True)]


OPTIONS = {"max_new_tokens": 4, "temperature": 1.0, "seed": 0}


def test_a_policys_own_answers_are_the_history(words):
    parrot = Parrot(words, [(" HO ", False), (" low", True)], [("HE", False), ("", False)])
    asked = [Conversation("a", SHOUT, ("hi", "bye")), Conversation("b", SHOUT, ("bye", "hi"))]
    talks, left = converse(parrot, asked, "every", max_prompt_tokens=99, **OPTIONS)
    assert parrot.asked == [
        ["Human: shout hi Assistant:", "Human: shout bye Assistant:"],
        [
            "Human: shout hi Assistant: HO Human: shout bye Assistant:",
            "Human: shout bye Assistant: low Human: shout hi Assistant:",
        ],
    ]
    assert [talk.answers for talk in talks] == [("HO", "HE"), ("low", "")]
    assert [talk.cut for talk in talks] == [(False, False), (True, False)]
    assert left == {}


def test_without_a_template_an_answer_ends_where_another_speaker_begins(words, chat):
    for tokenizer, answer, cut in ((words, "HO", False), (chat, "HO\n\nHuman: low", True)):
        parrot = Parrot(tokenizer, [("HO\n\nHuman: low", True)])
        (talk,), _ = converse(parrot, [Conversation("a", SHOUT, ("hi",))], "first", max_prompt_tokens=99, **OPTIONS)
        assert (talk.answers, talk.cut) == ((answer,), (cut,))


def test_a_dialogue_that_grows_too_long_is_left_out_whole_and_counted(words):
    parrot = Parrot(words, [("HO", False), ("HO HO", False)], [("HE", False)])
    asked = [Conversation("a", SHOUT, ("hi", "bye")), Conversation("b", SHOUT, ("hi", "bye"))]
    # Human: shout hi Assistant: HO Human: bye Assistant: has 8 tokens
    talks, left = converse(parrot, asked, "first", max_prompt_tokens=8, **OPTIONS)
    assert [talk.id for talk in talks] == ["a"]
    assert left == {"prompt too long": 1}
    assert converse(Parrot(words), asked, "first", max_prompt_tokens=3, **OPTIONS) == ([], {"prompt too long": 2})


def test_a_real_policy_converses_and_the_seed_decides(words):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(WORDS), n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    policy = CausalLMPolicy(GPT2LMHeadModel(config), words)
    asked = [Conversation(str(k), SHOUT, ("hi", "bye", "hi")) for k in range(4)]
    found = [
        converse(policy, asked, "first", max_prompt_tokens=60, **{**OPTIONS, "seed": seed})[0] for seed in (0, 0, 1)
    ]  # fmt: skip
    assert all(len(talk.answers) == 3 for talk in found[0])
    assert found[0] == found[1] != found[2]
    kept = converse(policy, asked[2:], "first", max_prompt_tokens=60, **OPTIONS)[0]
    assert kept == found[0][2:]
