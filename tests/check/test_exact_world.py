import math

import pytest
import torch

from suite.check.exact_world import (
    MAX_NEW_TOKENS,
    WORDS,
    ExactWorld,
    TableReward,
    best_of_n,
    exact_kl,
    expected_reward,
    mean_dpo_loss,
    optimum,
    sample_wins,
    tiny_language_model,
    win_probabilities,
    word_tokenizer,
)
from suite.maths.best_of_n import best_of_n_kl_bound
from suite.maths.losses import dpo_loss
from suite.policies.causal_lm import CausalLMPolicy


@pytest.fixture(scope="module")
def world():
    return ExactWorld()


@pytest.fixture(scope="module")
def policy():
    return CausalLMPolicy(tiny_language_model(), word_tokenizer())


@pytest.fixture(scope="module")
def reference(world, policy):
    return world.log_probs(policy.model).detach().double()


def test_every_completion_is_there_once_and_together_they_are_all(world, reference):
    for some in world.completions:
        assert len({c.ids for c in some}) == len({c.text for c in some}) == len(some) == 1 + 5 + 25 * 6
        for c in some:
            assert (c.ids[-1] == 0) != c.truncated
            assert c.ids.count(0) == (not c.truncated)
            assert len(c.ids) <= MAX_NEW_TOKENS
    assert torch.allclose(reference.exp().sum(-1), torch.ones(2, dtype=torch.float64), atol=1e-6)
    assert len({len(p.ids) for p in world.prompts}) == 2


def test_the_tree_agrees_with_the_policys_own_log_prob(world, policy, reference):
    long_way = torch.stack([policy.log_prob(some) for some in world.completions])
    assert torch.allclose(long_way.double(), reference, atol=1e-5)


def test_samples_follow_the_enumerated_probabilities(world, policy, reference):
    drawn = policy.sample(world.prompts, num_samples=4000, max_new_tokens=MAX_NEW_TOKENS, seed=0)
    for some, all_of_them, log_probs in zip(drawn, world.completions, reference, strict=True):
        index = {c.ids: i for i, c in enumerate(all_of_them)}
        observed = torch.zeros(len(all_of_them), dtype=torch.float64)
        for c in some:
            observed[index[c.ids]] += 1
        expected = 4000 * log_probs.exp()
        chi_squared = ((observed - expected) ** 2 / expected).sum()
        assert chi_squared < 155 + 5 * math.sqrt(2 * 155)


def test_the_optimum_maximises_the_objective(world, reference):
    rewards, beta = world.random_rewards(3), 0.7
    best, log_partition = optimum(reference, rewards, beta=beta)

    def objective(log_probs):
        return expected_reward(log_probs, rewards) - beta * exact_kl(log_probs, reference)

    assert torch.allclose(objective(best), beta * log_partition)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = (best + 0.3 * torch.randn(best.shape, generator=generator, dtype=torch.float64)).log_softmax(-1)
        assert (objective(other) < objective(best)).all()
        # the gap is β·KL(π‖π*), exactly
        assert torch.allclose(objective(best) - objective(other), beta * exact_kl(other, best))


def test_best_of_n_by_its_definition(world, reference):
    """Best of 2 by summing over all pairs of draws; the bound on its KL holds."""
    rewards = world.random_rewards(5)
    for n in (1, 2, 8):
        table = best_of_n(reference, rewards, n)
        assert torch.allclose(table.exp().sum(-1), torch.ones(2, dtype=torch.float64))
        assert (exact_kl(table, reference) <= best_of_n_kl_bound(n) + 1e-6).all()
    assert torch.allclose(best_of_n(reference, rewards, 1), reference, atol=1e-6)
    p, r = reference[0].exp(), rewards[0]
    both = p[:, None] * p[None, :]  # probability of drawing (a, b)
    by_hand = torch.stack([both[(torch.maximum(r[:, None], r[None, :]) == value)].sum() for value in r])
    assert torch.allclose(best_of_n(reference, rewards, 2)[0].exp(), by_hand, atol=1e-6)
    for bad in (lambda: best_of_n(reference, rewards, 0), lambda: optimum(reference, rewards, beta=0.0)):
        with pytest.raises(ValueError, match="expected"):
            bad()


def test_best_of_n_with_ties(world, policy, reference):
    """Against 20,000 real best-of-4 draws, the first of the best kept, with a reward that ties often."""
    rewards = world.word_rewards()[0]
    generator = torch.Generator().manual_seed(0)
    groups = torch.multinomial(reference[0].exp(), 80_000, replacement=True, generator=generator).view(-1, 4)
    kept = groups.gather(1, rewards[groups].argmax(1, keepdim=True))[:, 0]
    observed = torch.bincount(kept, minlength=156) / len(kept)
    expected = best_of_n(reference, world.word_rewards(), 4)[0].exp()
    assert (observed - expected).abs().max() < 5 * math.sqrt(0.05 / len(kept))


def test_the_table_reward_is_a_reward_of_texts(world, tmp_path):
    rewards = world.random_rewards(1)
    reward = TableReward.of(world, rewards)
    for p, some, row in zip(world.prompts, world.completions, rewards, strict=True):
        assert reward([p.text] * len(some), [c.text for c in some]) == row.tolist()
    reward.save(tmp_path / "reward")
    assert TableReward.load(tmp_path / "reward").table == reward.table


def test_the_text_of_a_completion_is_what_the_tokenizer_decodes(world, policy):
    for c in world.completions[1][::7]:
        assert policy.decode([i for i in c.ids if i != 0]) == c.text
    assert word_tokenizer()("cat dog<eos>")["input_ids"] == [WORDS.index("cat"), WORDS.index("dog"), 0]


def test_sampled_pairs_are_labelled_by_bradley_terry(world, reference):
    rewards = world.random_rewards(2, scale=2.0)
    pairs = world.sample_pairs(reference, rewards, 6000, seed=0)
    assert all(p.chosen.ids != p.rejected.ids for p in pairs)
    wins, expected = 0, 0.0
    for p in pairs:
        wins += p.chosen_reward > p.rejected_reward
        expected += 1 / (1 + math.exp(-abs(p.chosen_reward - p.rejected_reward)))
    assert wins == pytest.approx(expected, abs=4 * math.sqrt(len(pairs)) / 2)
    index = {c.ids: i for i, c in enumerate(world.completions[0])}
    for p in pairs[:20:2]:  # prompts take turns
        assert p.chosen_reward == rewards[0, index[p.chosen.ids]]
        assert p.reference_rejected_logps == pytest.approx(float(reference[0, index[p.rejected.ids]]))
    hard = world.sample_pairs(reference, world.word_rewards(), 2000, seed=0, labels="hard")  # many ties: none is drawn
    assert all(p.chosen_reward > p.rejected_reward for p in hard)
    with pytest.raises(ValueError, match="labels"):
        win_probabilities(reference, rewards, labels="soft")
    assert len(world.sample_pairs(reference, 1000 * rewards, 10, seed=0)) == 10


def test_sampled_rankings_are_plackett_luce(world, reference):
    """The first of a ranking is the best with probability softmax(r)."""
    rewards = world.random_rewards(2)
    rankings = world.sample_rankings(reference, rewards, 4000, seed=0, size=3)
    first_is_best = sum(ranking.rewards[0] == max(ranking.rewards) for ranking in rankings)
    expected = sum(math.exp(max(ranking.rewards)) / sum(math.exp(r) for r in ranking.rewards) for ranking in rankings)
    assert first_is_best == pytest.approx(expected, abs=4 * math.sqrt(4000) / 2)
    assert all(len({c.ids for c in ranking.completions}) == 3 for ranking in rankings)


def test_the_mean_loss_is_the_expectation_of_the_loss_on_pairs(world, policy, reference):
    """Against the plain sum over all ordered pairs of a few completions, and against real pairs within sampling error."""
    rewards = world.random_rewards(4)
    other = world.log_probs(tiny_language_model(1)).detach().double()
    wins = win_probabilities(reference, rewards)
    assert torch.allclose(wins.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    exact = mean_dpo_loss(other, reference, wins, beta=0.5)
    slow = 0.0
    for which in range(2):
        total, weight = 0.0, 0.0
        p = reference[which].exp()
        for a in range(156):
            others = [b for b in range(156) if b != a]
            loss = dpo_loss(
                other[which, a].expand(155),
                other[which, others],
                reference[which, a].expand(155),
                reference[which, others],
                beta=0.5,
            )
            share = p[a] * p[others] * (rewards[which, a] - rewards[which, others]).sigmoid()
            total, weight = total + (share * loss).sum(), weight + share.sum()
        slow += total / weight / 2
    assert exact.item() == pytest.approx(slow.item(), rel=1e-9)
    sampled = sample_wins(wins, 200_000, seed=0)
    assert sampled.sum().item() == pytest.approx(2)
    assert mean_dpo_loss(other, reference, sampled, beta=0.5).item() == pytest.approx(exact.item(), rel=0.02)
    pairs = world.sample_pairs(reference, rewards, 8000, seed=0)
    index = [{c.ids: i for i, c in enumerate(some)} for some in world.completions]
    policy_sides = torch.stack(
        [torch.stack([other[k % 2, index[k % 2][c.ids]] for c in (p.chosen, p.rejected)]) for k, p in enumerate(pairs)]
    )
    reference_sides = torch.tensor([[p.reference_chosen_logps, p.reference_rejected_logps] for p in pairs], dtype=torch.float64)
    losses = dpo_loss(*policy_sides.T, *reference_sides.T, beta=0.5)
    assert losses.mean().item() == pytest.approx(exact.item(), abs=4 * float(losses.std()) / math.sqrt(8000))


def test_making_a_model_leaves_the_global_random_state_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    tiny_language_model(3)
    assert torch.equal(torch.rand(3), expected)
    one, two = tiny_language_model(3), tiny_language_model(4)
    assert not torch.equal(one.lm_head.weight, two.lm_head.weight)
