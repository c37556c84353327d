"""Prompt and answer as the chat template writes the whole conversation, over the kinds of tokenizers and templates."""

import copy

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from suite.common.errors import UserError
from suite.data.chat_template import check_template, end_ids, turn_of
from suite.policies.causal_lm import CausalLMPolicy
from suite.tasks.own_data import FORM, example_of
from suite.tasks.splits import text_pairs
from suite.tasks.text_format import Limits, tokenise

WORDS = [
    "user assistant system model Be brief . What is the capital of Norway ? Oslo , I think . No idea ! INST SYS end of turn"
] * 4
LOOP = "{% for m in messages %}"
END, ASK = "{% endfor %}", "{% if add_generation_prompt %}"
LLAMA2 = (
    "{{ bos_token }}{% set s = '' %}{% if messages[0].role == 'system' %}"
    "{% set s = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{% set messages = messages[1:] %}{% endif %}" + LOOP
    + "{% if m.role == 'user' %}[INST] {{ s if loop.first else '' }}{{ m.content }} "
    "[/INST]{% else %} {{ m.content }} {{ eos_token }}{% endif %}" + END
)  # fmt: skip
LLAMA3 = (
    LOOP + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>" + END + ASK
    + "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)  # fmt: skip
MISTRAL = (
    "{{ bos_token }}" + LOOP
    + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}" + END
)  # fmt: skip
ZEPHYR = LOOP + "<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n" + END + ASK + "<|assistant|>\n{% endif %}"
CHATML = LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" + END + ASK + "<|im_start|>assistant\n{% endif %}"
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + LOOP
    + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n" + END + ASK
    + "<start_of_turn>model\n{% endif %}"
)  # fmt: skip
PHI = (
    LOOP + "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n" + END
    + "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)  # fmt: skip
OLMO = (
    "{{ bos_token }}" + LOOP + "<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n"
    + END + ASK + "<|assistant|>\n{% endif %}"
)  # fmt: skip


def byte_level(specials, **names):
    """As GPT-2's, Qwen's, Llama-3's."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=found, **names)


def sentencepiece(specials, *, blank_first, **names):
    """As Llama-2's (a blank is put before every text) or Gemma's (none is)."""
    found = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    specials = ["<unk>", *specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    found.train_from_iterator(
        [*WORDS, *(f" {text}" for text in WORDS)], trainers.BpeTrainer(vocab_size=600, special_tokens=specials)
    )
    found.pre_tokenizer = None
    steps = [normalizers.Replace(" ", "▁")]
    found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *steps] if blank_first else steps)
    strip = [decoders.Strip(" ", 1, 0)] if blank_first else []
    found.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    bos = names["bos_token"]
    found.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, found.token_to_id(bos))])
    return PreTrainedTokenizerFast(tokenizer_object=found, unk_token="<unk>", **names)


def llama(template):
    made = sentencepiece(["<s>", "</s>"], blank_first=True, bos_token="<s>", eos_token="</s>")
    made.chat_template = template
    return made


def gemma():
    made = sentencepiece(
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], blank_first=False, bos_token="<bos>", eos_token="<eos>"
    )
    made.chat_template = GEMMA
    return made


def with_template(template, specials, eos):
    made = byte_level(specials, eos_token=eos, bos_token=specials[0])
    made.chat_template = template
    return made


LLAMA3_TOKENS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
KINDS = {
    "llama2": (lambda: llama(LLAMA2), "</s>"),
    "llama3": (lambda: with_template(LLAMA3, LLAMA3_TOKENS, "<|end_of_text|>"), "<|eot_id|>"),
    "mistral": (lambda: llama(MISTRAL), "</s>"),
    "zephyr": (lambda: llama(ZEPHYR), "</s>"),
    "qwen2": (lambda: with_template(CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_end|>"), "<|im_end|>"),
    "gemma2": (gemma, "<end_of_turn>"),
    "phi": (lambda: with_template(PHI, ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>"], "<|endoftext|>"), "<|end|>"),
    "olmo": (lambda: with_template(OLMO, ["<|endoftext|>"], "<|endoftext|>"), "<|endoftext|>"),
    "gpt_neox": (lambda: byte_level(["<|endoftext|>"], eos_token="<|endoftext|>", bos_token="<|endoftext|>"), "<|endoftext|>"),
    "gpt_j": (lambda: byte_level(["<|endoftext|>", "<|pad|>"], eos_token="<|endoftext|>"), "<|endoftext|>"),
}  # fmt: skip
"""Kind → how its tokenizer is made, and the token that ends an answer."""
ASKED = [{"role": "user", "content": "What is the capital of Norway?"}]
CHOSEN, REJECTED = "Oslo, I think.", "No idea!"
ROW = {
    "prompt": ASKED,
    "chosen": [{"role": "assistant", "content": CHOSEN}],
    "rejected": [{"role": "assistant", "content": REJECTED}],
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    make, end = KINDS[request.param]
    tokenizer = make()
    return tokenizer, tokenizer.convert_tokens_to_ids(end)


def whole_ids(tokenizer, answer):
    """The conversation as the template gives it, up to the end of the answer's turn; without a template as people join it."""
    if not tokenizer.chat_template:
        text = f"\n\nHuman: {ASKED[0]['content']}\n\nAssistant: {answer}"
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    text = tokenizer.apply_chat_template([*ASKED, {"role": "assistant", "content": answer}], tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]  # BOS is the template's to write


def test_prompt_and_answer_are_the_tokens_of_the_whole_conversation(kind):
    tokenizer, end = kind
    made = tokenise(FORM, example_of(ROW), tokenizer, Limits(200, 100))
    for side, answer in ((made.chosen, CHOSEN), (made.rejected, REJECTED)):
        whole = whole_ids(tokenizer, answer)
        ids = [*made.prompt.ids, *side.ids]
        assert ids == whole[: len(ids)]
        left = tokenizer.decode(whole[len(ids) :]).strip()  # nothing but a blank is left out, or EOS after the turn's end
        assert left in ("", tokenizer.eos_token)
        assert side.ids[-1] == end
        assert side.ids.count(end) == 1
        assert side.text.strip() == answer
        assert not side.truncated
    (pair,) = text_pairs(FORM, {"train": [ROW]}, tokenizer)
    assert (pair.prompt, pair.chosen.strip(), pair.rejected.strip()) == (made.prompt.text, CHOSEN, REJECTED)


def test_an_end_inside_an_answer_does_not_end_it(kind):
    """Somebody wrote the token as text: the answer goes on to its own end, and the doctor names the row."""
    tokenizer, end = kind
    answer = f"Oslo{tokenizer.convert_ids_to_tokens(end)}, I think."
    row = {**ROW, "chosen": [{"role": "assistant", "content": answer}]}
    made = tokenise(FORM, example_of(row), tokenizer, Limits(200, 100))
    assert made.chosen.ids.count(end) == 2
    assert made.chosen.ids[-1] == end
    assert made.chosen.text.strip().endswith("I think.")


def test_an_answer_that_is_too_long_has_no_end(kind):
    tokenizer, _ = kind
    made = tokenise(FORM, example_of(ROW), tokenizer, Limits(200, 2))
    assert made.chosen.truncated
    assert len(made.chosen.ids) == 2
    assert not set(made.chosen.ids) & set(end_ids(tokenizer))


def test_a_system_message_stands_once_or_is_refused_by_name(kind):
    tokenizer, _ = kind
    rows = [
        {"system": "Be brief.", "question": ASKED[0]["content"], "chosen": CHOSEN, "rejected": REJECTED},
        {"prompt": ASKED[0]["content"], **{side: [{"role": "system", "content": "Be brief."}, *ASKED, *ROW[side]]
                                           for side in ("chosen", "rejected")}},
    ]  # fmt: skip
    for row in rows:
        made = tokenise(FORM, example_of(row), tokenizer, Limits(200, 100))
        if isinstance(made, str):
            assert "System role not supported" in made or "roles must alternate" in made
            continue
        assert made.prompt.text.count("Be brief.") == 1
        assert made.prompt.text.count(ASKED[0]["content"]) == 1


def test_every_token_that_ends_a_turn_ends_a_completion(kind):
    """The tokenizer's, the template's, and those that the generation settings name."""
    tokenizer, end = copy.deepcopy(kind[0]), kind[1]
    tokenizer.add_tokens(["<|other|>"], special_tokens=True)
    other, rows = tokenizer.convert_tokens_to_ids("<|other|>"), len(tokenizer)
    config = LlamaConfig(
        vocab_size=rows, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, bos_token_id=None,
        max_position_embeddings=256, eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    a_word = next(i for i in range(rows) if i not in tokenizer.added_tokens_decoder)  # a default that knows no tokenizer
    model.generation_config = GenerationConfig(eos_token_id=[other, a_word, 10**6])
    policy = CausalLMPolicy(model, tokenizer)
    assert set(policy.end_ids) == {tokenizer.eos_token_id, end, other}
    assert policy.end_ids[0] == tokenizer.eos_token_id
    made = tokenise(FORM, example_of(ROW), tokenizer, Limits(200, 100))
    drawn = policy.sample([made.prompt], num_samples=300, max_new_tokens=60, seed=0)[0]
    for completion in drawn:
        ends = [place for place, token in enumerate(completion.ids) if token in policy.end_ids]
        assert ends == ([] if completion.truncated else [len(completion.ids) - 1])
    ended = {completion.ids[-1] for completion in drawn if not completion.truncated}
    assert {end, other} <= ended


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.role.nothing.at.all }}{% endfor %}", "UndefinedError"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "too much time or memory"),
        ("{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}", "too much"),
        ("{{ 'long ' * 100000 }}{{ messages[-1].content }}", "characters for three short turns"),
        ("{% if %}", "TemplateSyntaxError"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused_in_one_line(template, words, monkeypatch):
    monkeypatch.setattr("suite.data.chat_template.SECONDS", 1)
    tokenizer = with_template(template, ["<|endoftext|>"], "<|endoftext|>")
    with pytest.raises(UserError, match="a_model: the chat template cannot be used") as caught:
        check_template(tokenizer, "a_model")
    assert words in str(caught.value)


def test_a_template_that_changes_the_prompt_or_the_answer_is_refused():
    thinks = "{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}<|endoftext|>{% endfor %}"
    tokenizer = with_template(thinks + ASK + "assistant: {% endif %}", ["<|endoftext|>"], "<|endoftext|>")
    assert turn_of(tokenizer, ASKED, CHOSEN).text == CHOSEN
    with pytest.raises(ValueError, match="changes the answer"):
        turn_of(tokenizer, ASKED, f"Hm.</think>{CHOSEN}")
    tokenizer.chat_template = thinks + ASK + "assistant: <think>{% endif %}"
    with pytest.raises(ValueError, match="writes the prompt otherwise"):
        turn_of(tokenizer, ASKED, CHOSEN)


def test_a_tokenizer_may_have_several_templates_or_one_that_reads_no_answers():
    tokenizer = with_template({"default": CHATML, "tool_use": "{{ tools }}"}, ["<|endoftext|>", "<|im_end|>"], "<|endoftext|>")
    check_template(tokenizer, "a_model")
    assert end_ids(tokenizer) == (0, 1)
    tokenizer.chat_template = "{{ messages[0].content }}"
    check_template(tokenizer, "a_model")  # texts can be continued all the same
    assert end_ids(tokenizer) == (0,)
    with pytest.raises(ValueError, match="leaves the answer out"):
        turn_of(tokenizer, ASKED, CHOSEN)


def test_an_answer_may_have_what_the_template_writes_before_others():
    thinks = LOOP + "<{{ m.role }}>{% if m.role == 'assistant' and '<think>' not in m.content %}<think></think>{% endif %}"
    tokenizer = with_template(thinks + "{{ m.content }}<|endoftext|>" + END + ASK + "<assistant>{% endif %}", ["<|endoftext|>"],
                              "<|endoftext|>")  # fmt: skip
    assert turn_of(tokenizer, ASKED, CHOSEN).text == f"<think></think>{CHOSEN}"
    assert turn_of(tokenizer, ASKED, f"<think>Hm.</think>{CHOSEN}").text == f"<think>Hm.</think>{CHOSEN}"
