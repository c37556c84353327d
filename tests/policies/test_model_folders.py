"""Model folders from strangers: whatever is wrong with one is said in one line, and no code of theirs runs."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    GPTNeoXConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from suite.common.errors import UserError
from suite.data.tokenizers import load_tokenizer
from suite.policies.causal_lm import CausalLMPolicy
from suite.policies.kinds import policy_class_of
from suite.policies.model_config import check_language_model, check_reward_model, context_of, load_config
from suite.rewards.open_reward import open_reward
from suite.study.artefacts import open_policy

WORDS = ["<end>", "good", "bad", "film", "plot"]
SIZES = {"vocab_size": len(WORDS), "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
TOO_WIDE = {**SIZES, "hidden_size": 16}


def tokenizer(words=WORDS, **names):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A language model's folder and a reward model's, both as they should be."""
    root = tmp_path_factory.mktemp("models")
    config = GPTNeoXConfig(**SIZES, max_position_embeddings=48, bos_token_id=0, eos_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(root / "lm")
    config.num_labels, config.pad_token_id = 1, 0
    from transformers import GPT2Config

    reward = GPT2Config(vocab_size=len(WORDS), n_embd=8, n_layer=1, n_head=1, n_positions=48, num_labels=1, pad_token_id=0)
    AutoModelForSequenceClassification.from_config(reward).save_pretrained(root / "reward")
    for name in ("lm", "reward"):
        tokenizer(eos_token="<end>").save_pretrained(root / name)
    return root


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound / "lm", tmp_path / "lm")


def edit(name, **changes):
    def change(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return change


def write(name, content):
    def change(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def not_a_number(folder):
    weights = load_file(folder / "model.safetensors")
    first = sorted(weights)[0]
    weights[first] = torch.full_like(weights[first], torch.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class Attack:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('attacked').write_text('')",))


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Attack()))


def custom_code(folder):
    (folder / "modeling_x.py").write_text("import pathlib\npathlib.Path('attacked').write_text('')\nclass X: pass\n")
    edit("config.json", model_type="x", auto_map={"AutoConfig": "modeling_x.X", "AutoModelForCausalLM": "modeling_x.X"})(folder)


def more_tokens(folder):
    tokenizer([*WORDS, "<pad>", "<start>"], eos_token="<end>").save_pretrained(folder)


def no_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()


def sentencepiece_only(folder):
    no_tokenizer(folder)
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15")


def no_eos(folder):
    tokenizer().save_pretrained(folder)


def adapters(**content):
    return write("adapter_config.json", json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "not a causal language model with its weights"),
        (write("model.safetensors", b""), "not a causal language model with its weights"),
        (write("model.safetensors", b"\xff" * 100), "not a causal language model with its weights"),
        (edit("config.json", hidden_size=16), "weights"),
        (not_a_number, "weights are not finite"),
        (pickled, "not a causal language model with its weights"),
        (custom_code, "config.json cannot be read"),
        (write("config.json", "{"), "config.json cannot be read"),
        (write("config.json", "[]"), "config.json cannot be read"),
        (edit("config.json", model_type="no_such"), "config.json cannot be read"),
        (edit("config.json", num_hidden_layers=10**7), "num_hidden_layers is 10000000"),
        (edit("config.json", vocab_size=-3), "vocab_size is -3"),
        (write("tokenizer.json", "{"), "its tokenizer cannot be loaded"),
        (write("tokenizer_config.json", "[1"), "its tokenizer cannot be loaded"),
        (no_tokenizer, "no tokenizer in the folder"),
        (sentencepiece_only, 'pip install "rlhf-vs-dpo[tokenizers]"'),
        (no_eos, "has no EOS token"),
        (more_tokens, "its tokenizer has 2 tokens that the model has not"),
        (write("chat_template.jinja", "{{ raise_exception('no') }}"), "the chat template cannot be used"),
        (write("adapter_config.json", "{"), "names no base model"),
        (adapters(peft_type="LORA"), "names no base model"),
        (adapters(base_model_name_or_path="./nowhere"), "config.json cannot be read"),
        (adapters(base_model_name_or_path="BASE", peft_type="NONE"), "its adapters cannot be read"),
        (adapters(base_model_name_or_path="BASE", peft_type="LORA"), "its adapters cannot be read"),
        (write("policy_class", "this"), "no registered policy class"),
        (write("policy_class", "os:system"), "no registered policy class"),
        (write("policy_class", b"\xff\x00"), "no registered policy class"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_line_and_runs_nothing(folder, sound, damage, words, tmp_path, monkeypatch):
    import io
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))  # whoever answers yes to everything
    damage(folder)
    if (folder / "adapter_config.json").exists():
        text = (folder / "adapter_config.json").read_text().replace("BASE", str(sound / "lm"))
        (folder / "adapter_config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        open_policy(str(folder), tmp_path / "runs")
    assert words in str(caught.value)
    assert str(folder) in str(caught.value) or "nowhere" in str(caught.value)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (write("reward_scale.json", "{"), "expected an object with mean and std"),
        (write("reward_scale.json", '{"mean": 1}'), "expected an object with mean and std"),
        (write("reward_scale.json", '{"mean": 0, "std": 0}'), "a std above 0"),
        (write("reward_scale.json", '{"mean": NaN, "std": 1}'), "expected a finite mean"),
        (edit("config.json", id2label="x"), "config.json cannot be read"),
        (edit("config.json", id2label={"0": "a", "1": "b"}), ""),
        (write("ngrams.safetensors", b"x"), "cannot be read as the weights of n-grams"),
        (write("config.json", "{"), "config.json cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_reward_is_one_line(sound, tmp_path, damage, words):
    folder = shutil.copytree(sound / "reward", tmp_path / "reward")
    open_reward(str(folder))
    damage(folder)
    with pytest.raises(UserError) as caught:
        open_reward(str(folder))
    assert words in str(caught.value)


def test_what_does_not_fit_is_known_from_the_folder_alone(sound, folder):
    (folder / "model.safetensors").unlink()  # no weights are read
    check_language_model(str(folder), "a", 24, 24)
    with pytest.raises(UserError, match="prompts of up to 25 tokens and answers of up to 24 do not fit into its context of 48"):
        check_language_model(str(folder), "a", 25, 24)
    more_tokens(folder)
    with pytest.raises(UserError, match="token 6, the model has 5 rows"):
        check_language_model(str(folder), "b", 24, 24)
    with pytest.raises(UserError, match="GPT2ForSequenceClassification is no causal language model"):
        check_language_model(str(sound / "reward"), "a", 24, 24)
    check_reward_model(str(sound / "reward"), "a")
    with pytest.raises(UserError, match="GPTNeoXForCausalLM gives no rewards of texts"):
        check_reward_model(str(sound / "lm"), "a")


def test_models_that_count_positions_after_padding_read_two_tokens_less(tmp_path):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = RobertaConfig(
        vocab_size=len(WORDS), max_position_embeddings=20, pad_token_id=1, num_labels=2, type_vocab_size=1, **sizes
    )
    config.id2label, config.label2id = {0: "NEGATIVE", 1: "POSITIVE"}, {"NEGATIVE": 0, "POSITIVE": 1}
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer(pad_token="good").save_pretrained(tmp_path)
    assert context_of(load_config(tmp_path)) == 18
    values = open_reward(str(tmp_path))(["film " * 10, "film"], ["plot " * 50, " plot"])  # a text beyond the context is cut
    assert all(0 < value < 1 for value in values)


def test_a_policy_class_is_a_registered_one_or_of_the_methods_module(folder):
    assert policy_class_of(folder) is CausalLMPolicy
    (folder / "policy_class").write_text("suite.policies.causal_lm:CausalLMPolicy")
    assert policy_class_of(folder) is CausalLMPolicy
    (folder / "policy_class").write_text("pickle:Unpickler")
    with pytest.raises(UserError, match="'pickle:Unpickler' is no registered policy class"):
        policy_class_of(folder, methods=["dpo", "decimal:Decimal"])
    assert policy_class_of(folder, methods=["pickle:MyMethod"]) is pickle.Unpickler
    (folder / "policy_class").write_text("fractions:Fraction")
    with pytest.raises(UserError, match="has no load"):
        policy_class_of(folder, methods=["fractions:MyMethod"])


def test_a_classifiers_tokenizer_needs_no_eos(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path, needs_eos=False).eos_token is None


@pytest.mark.parametrize("kind", ["bert", "bart"])
def test_a_model_that_is_no_causal_one_is_refused_before_anything_is_trained(kind, tmp_path):
    """One that fills masks says so; one that heeds no positions is found by reading its own completions again."""
    from transformers import BartConfig, BertConfig

    sizes = {"vocab_size": len(WORDS), "max_position_embeddings": 48, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if kind == "bert":
        config = BertConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, **sizes)
        AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    else:
        config = BartConfig(
            d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8, encoder_attention_heads=1,
            decoder_attention_heads=1, is_decoder=True, is_encoder_decoder=False, init_std=2.0, **sizes,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer(eos_token="<end>").save_pretrained(tmp_path)
    if kind == "bert":
        with pytest.raises(UserError, match="BertForMaskedLM is no causal language model"):
            check_language_model(str(tmp_path), "a", 8, 8)
    with pytest.raises(UserError, match=r"read again|cannot be drawn"):
        CausalLMPolicy.load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda weights: {name.replace("lora_A", "lora_X"): value for name, value in weights.items()}, "not all of them"),
        (lambda weights: dict(list(weights.items())[1:]), "not all of them"),
        (lambda weights: {name: value * torch.nan for name, value in weights.items()}, "weights are not finite"),
    ],
)
def test_adapters_that_are_not_all_there_are_refused(damage, words, sound, tmp_path):
    policy = CausalLMPolicy.load(sound / "lm", lora_rank=2).copy()
    policy.save(tmp_path)
    CausalLMPolicy.load(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file(damage(load_file(path)), path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=words):
        CausalLMPolicy.load(tmp_path)


def test_special_tokens_that_nobody_writes_may_have_no_weights(folder):
    made = tokenizer(eos_token="<end>")
    made.add_tokens(["<image>"], special_tokens=True)
    made.save_pretrained(folder)
    check_language_model(str(folder), "image", 24, 24)
    made.add_tokens(["cinema"])
    made.save_pretrained(folder)
    with pytest.raises(UserError, match="1 tokens that the model has not"):
        check_language_model(str(folder), "word", 24, 24)
