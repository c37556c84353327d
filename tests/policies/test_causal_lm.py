from itertools import chain, product

import numpy as np
import pytest
import torch
from conftest import EOS, WORDS, completion, tiny_model
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GPTNeoXConfig, LlamaConfig
from transformers.activations import NewGELUActivation

from suite.common.errors import UserError
from suite.data.preference_data import Prompt
from suite.policies import sampling
from suite.policies.causal_lm import CausalLMPolicy
from suite.policies.model_config import cached_numbers
from suite.policies.sampling import uniforms
from suite.policies.surgery import disable_dropout, fuse_gelu, head_is_linear, packed


def some_completions(prompts):
    return [
        completion(prompts[0], 2, 5, 0),
        completion(prompts[1], 1),
        completion(prompts[2], 4, 4, 3, 2),
        completion(prompts[2], 0),
    ]


def test_log_prob_is_the_sum_over_completion_tokens_only(policy, prompts):
    """Against one unpadded forward pass per completion, token by token."""
    for c in some_completions(prompts):
        ids = torch.tensor([[*c.prompt.ids, *c.ids]])
        log_probs = policy.model(ids).logits[0].log_softmax(-1)
        start = len(c.prompt.ids)
        expected = sum(log_probs[start + t - 1, token].item() for t, token in enumerate(c.ids))
        assert policy.log_prob([c]).item() == pytest.approx(expected, abs=1e-4)


def test_the_batch_does_not_matter(policy, prompts):
    completions = some_completions(prompts)
    alone = torch.cat([policy.log_prob([c]) for c in completions])
    assert torch.allclose(policy.log_prob(completions), alone, atol=1e-4)


def test_next_token_log_probs_agree_with_log_prob(policy, prompts):
    completions = some_completions(prompts)
    table = policy.next_token_log_probs(completions)
    assert table.shape == (4, 4, len(WORDS))
    for row, c in enumerate(completions):
        total = sum(table[row, t, token].item() for t, token in enumerate(c.ids))
        assert total == pytest.approx(policy.log_prob([c]).item(), abs=1e-4)
    assert torch.allclose(table.exp().sum(-1), torch.ones(4, 4), atol=1e-5)


def test_token_log_probs_are_the_parts_of_log_prob(policy, prompts):
    completions = some_completions(prompts)
    tokens, mask = policy.completion_token_log_probs(completions)
    assert tokens.requires_grad
    assert mask.sum(1).tolist() == [len(c.ids) for c in completions]
    assert (tokens[~mask] == 0).all()
    table = policy.next_token_log_probs(completions)
    for row, c in enumerate(completions):
        for t, token in enumerate(c.ids):
            assert tokens[row, t].item() == pytest.approx(table[row, t, token].item(), abs=1e-4)
    assert torch.allclose(tokens.sum(-1), policy.log_prob(completions), atol=1e-4)


def test_what_comes_after_the_output_layer_is_seen(policy, prompts, tokenizer):
    """A soft cap hardly shows on small logits, yet the log-probs of such a model must come from its own logits."""
    assert head_is_linear(policy.model)
    capped = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, final_logit_softcapping=2.0, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    assert not head_is_linear(capped)
    test_log_prob_is_the_sum_over_completion_tokens_only(CausalLMPolicy(capped, tokenizer), prompts)
    wrapped = tiny_model()
    wrapped.lm_head = torch.nn.Sequential(wrapped.lm_head)
    assert not head_is_linear(wrapped)


def test_the_sampler_draws_from_the_distribution_that_is_scored(policy):
    """Frequencies of all completions of at most two tokens against their enumerated probabilities."""
    prompt = Prompt("p", (3, 1), "film good")
    every = [completion(prompt, EOS)] + [completion(prompt, a, b) for a, b in product(range(1, 6), range(6))]
    probabilities = policy.log_prob(every).exp().numpy()
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    n = 4000
    (drawn,) = policy.sample([prompt], num_samples=n, max_new_tokens=2, seed=0)
    counts = np.array([sum(c.ids == e.ids for c in drawn) for e in every])
    assert counts.sum() == n
    expected = probabilities * n
    common = expected > 5
    chi2 = ((counts[common] - expected[common]) ** 2 / expected[common]).sum()
    assert chi2 < common.sum() + 5 * np.sqrt(2 * common.sum())


def test_sampling_log_probs_equal_re_scored_ones(policy, prompts):
    drawn = [c for some in policy.sample(prompts, num_samples=8, max_new_tokens=6, seed=1) for c in some]
    sampled = torch.tensor([c.sampler_log_prob for c in drawn])
    assert torch.allclose(sampled, policy.log_prob(drawn), atol=1e-3)


def test_exactly_one_eos_and_none_when_truncated(policy, prompts):
    drawn = [c for some in policy.sample(prompts, num_samples=40, max_new_tokens=6, seed=1) for c in some]
    assert {c.truncated for c in drawn} == {True, False}
    for c in drawn:
        assert c.ids.count(EOS) == (0 if c.truncated else 1)
        assert c.truncated or c.ids[-1] == EOS
        assert len(c.ids) <= 6
        assert "<eos>" not in c.text


def test_samples_depend_on_the_seed_and_not_on_the_batch(policy, prompts):
    keywords = {"num_samples": 3, "max_new_tokens": 6}
    together = policy.sample(prompts, seed=5, **keywords)
    assert together == policy.sample(prompts, seed=5, **keywords)
    alone = [policy.sample([p], seed=5, **keywords)[0] for p in prompts]
    assert [[c.ids for c in some] for some in together] == [[c.ids for c in some] for some in alone]
    other = policy.sample(prompts, seed=6, **keywords)
    assert [[c.ids for c in some] for some in together] != [[c.ids for c in some] for some in other]


def test_a_prompt_read_once_for_all_its_samples_gives_the_same_ones(policy, prompts, monkeypatch):
    together = policy.sample(prompts, num_samples=5, max_new_tokens=6, seed=3)
    monkeypatch.setattr(sampling, "TOKENS_PER_BATCH", 1)  # every row in a batch of its own
    alone = policy.sample(prompts, num_samples=5, max_new_tokens=6, seed=3)
    assert [[c.ids for c in some] for some in together] == [[c.ids for c in some] for some in alone]
    for a, b in zip(chain(*together), chain(*alone), strict=True):
        assert a.sampler_log_prob == pytest.approx(b.sampler_log_prob, abs=1e-4)
    assert len({c.ids for c in together[1]}) > 1


def test_a_large_model_draws_in_smaller_batches(policy, prompts, monkeypatch):
    """As many rows as their keys and values have room for; a small one as many as ever."""
    pythia, embedded = 2 * 32 * 2560, 2 * 4 * 256  # layers · width of keys and of values
    assert cached_numbers(GPTNeoXConfig(hidden_size=2560, num_hidden_layers=32, num_attention_heads=32)) == pythia
    assert cached_numbers(LlamaConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2)) == 96
    assert sampling.rows_per_batch(pythia, 512, on_gpu=True) == 2**34 // (4 * pythia) // 512 == 51
    assert sampling.rows_per_batch(embedded, 512, on_gpu=True) == sampling.rows_per_batch(None, 512, on_gpu=True) == 160
    assert sampling.rows_per_batch(pythia, 512, on_gpu=False) == 40  # of tokens
    assert sampling.rows_per_batch(10**9, 512, on_gpu=True) == 1
    batches = []
    together = policy.sample(prompts, num_samples=5, max_new_tokens=6, seed=3)
    monkeypatch.setattr(sampling, "CACHE_PER_BATCH", 4 * 2 * 2 * 16 * 9 * 3)  # of three rows of 9 tokens
    apart = policy.sample(prompts, num_samples=5, max_new_tokens=6, seed=3, on_batch=batches.append)
    assert max(batches) <= 4
    assert [[c.ids for c in some] for some in together] == [[c.ids for c in some] for some in apart]


def test_rows_that_end_early_leave_the_batch_and_nothing_changes(policy, prompts, monkeypatch):
    """A third of the first tokens are EOS here; with and without padding, whether rows are taken out often or never."""
    for some in (prompts, [Prompt(p.id, p.ids[:1], "") for p in prompts]):
        drawn = {}
        for share in (0.0, 0.5, 1.0):
            monkeypatch.setattr(sampling, "KEPT_SHARE", share)
            drawn[share] = policy.sample(some, num_samples=40, max_new_tokens=6, seed=3)
        assert len({len(c.ids) for some in drawn[0.0] for c in some}) >= 4
        for share in (0.5, 1.0):
            for some_a, some_b in zip(drawn[0.0], drawn[share], strict=True):
                assert [c.ids for c in some_a] == [c.ids for c in some_b]
                for a, b in zip(some_a, some_b, strict=True):
                    assert a.sampler_log_prob == pytest.approx(b.sampler_log_prob, abs=1e-5)


@pytest.mark.parametrize("vocabulary", [6, 64, 1000, 8192])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_token_is_where_the_cumulative_sum_passes_the_uniform_number(vocabulary, temperature):
    """Against float64 from left to right; where they differ, the number lies on the edge between two tokens."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 3 * torch.randn(500, vocabulary, generator=generator)
    logits[:, 1::3] = -torch.inf  # such a token is never drawn
    noise = torch.rand(500, dtype=torch.float64, generator=generator)
    noise[:3] = torch.tensor([0.0, 1 - 2**-53, 1 - 2**-25])
    token, log_prob = sampling._draw(logits, noise, temperature)
    p = (logits.double() / temperature).softmax(-1)
    rows = torch.arange(500)
    assert (p[rows, token] > 0).all()
    assert torch.allclose(log_prob.double(), p[rows, token].log(), atol=1e-4)
    up_to = p.cumsum(-1)
    assert (up_to[rows, token] > noise - 2e-6).all()
    assert (up_to[rows, token] - p[rows, token] <= noise + 2e-6).all()
    assert (token != torch.searchsorted(up_to, noise[:, None], right=True)[:, 0]).sum() <= 5


def test_packed_weights_multiply_alike_and_are_gone_afterwards(policy, prompts):
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.inference_mode():
        plain = policy.model(ids).logits
        with packed(policy.model):
            assert torch.allclose(policy.model(ids).logits, plain, atol=1e-5)
            for name, weight in policy.model.named_parameters():
                if "mlp" in name:
                    weight.mul_(2)
            assert torch.allclose(policy.model(ids).logits, plain, atol=1e-5)  # a copy: made anew for each use
        assert not torch.allclose(policy.model(ids).logits, plain, atol=1e-2)
    assert not any("forward" in vars(module) for module in policy.model.modules())
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        plain = policy.model(ids).logits
        with packed(policy.model):
            assert policy.model(ids).logits.dtype == plain.dtype == torch.bfloat16
            assert torch.allclose(policy.model(ids).logits, plain, rtol=0.05, atol=0.5)


def test_gelu_in_one_kernel_is_the_same_function():
    x = torch.linspace(-6, 6, 1001)
    assert torch.allclose(NewGELUActivation()(x), fuse_gelu(nn.Sequential(NewGELUActivation()))(x), atol=1e-6)
    model = fuse_gelu(tiny_model())
    assert not [module for module in model.modules() if isinstance(module, NewGELUActivation)]
    assert model.config.activation_function == "gelu_new"  # what is saved


def test_more_samples_keep_the_first_ones(prompts):
    few, many = (uniforms(prompts[0], num_samples=n, max_new_tokens=4, seed=0) for n in (2, 5))
    assert np.array_equal(few, many[:2])


def test_temperature_0_is_greedy(gpt2, prompts):
    first, second = (gpt2.sample(prompts, num_samples=1, max_new_tokens=4, temperature=0, seed=s) for s in (0, 1))
    assert [c[0].ids for c in first] == [c[0].ids for c in second]
    table = gpt2.next_token_log_probs([first[0][0]])
    assert first[0][0].ids[0] == int(table[0, 0].argmax())


def test_dropout_is_off_even_in_training_mode(tokenizer, prompts):
    policy = CausalLMPolicy(tiny_model(dropout=0.5), tokenizer)
    policy.model.train()
    completions = some_completions(prompts)
    assert torch.equal(policy.log_prob(completions), policy.log_prob(completions))


def test_disable_dropout_is_what_makes_it_so(prompts):
    model = tiny_model(dropout=0.5).train()
    ids = torch.tensor([[1, 2, 3]])
    assert not torch.equal(model(ids).logits, model(ids).logits)
    disable_dropout(model)
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_a_copy_is_independent_and_a_saved_policy_comes_back(policy, prompts, tmp_path):
    completions = some_completions(prompts)
    before = policy.log_prob(completions)
    copy = policy.copy()
    with torch.no_grad():
        next(copy.model.parameters()).add_(1.0)
    assert torch.equal(policy.log_prob(completions), before)
    policy.save(tmp_path / "saved")
    assert torch.allclose(CausalLMPolicy.load(tmp_path / "saved").log_prob(completions), before, atol=1e-6)


def test_a_lower_precision_sampler_is_scored_in_full_precision(tokenizer, prompts):
    policy = CausalLMPolicy(tiny_model(), tokenizer, sampler_dtype=torch.bfloat16)
    policy.sample(prompts, num_samples=1, max_new_tokens=2, seed=0)
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    assert policy.log_prob(some_completions(prompts)).dtype == torch.float32


@pytest.mark.parametrize("bad", [{"num_samples": 0}, {"max_new_tokens": 0}, {"temperature": -1.0}, {"max_new_tokens": 31}])
def test_lengths_out_of_range_are_refused(gpt2, prompts, bad):
    with pytest.raises(ValueError, match=r"expected|context of 32"):
        gpt2.sample(prompts, **{"num_samples": 1, "max_new_tokens": 4, "seed": 0, **bad})


def test_a_folder_without_a_model_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="it holds no model"):
        CausalLMPolicy.load(tmp_path)
