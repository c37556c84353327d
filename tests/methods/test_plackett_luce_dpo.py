import torch
from conftest import completion

from suite.data.preference_data import Ranking
from suite.methods.plackett_luce_dpo import in_rankings, ranking_log_probs
from suite.training.settings import OptimConfig


def rankings(prompts, *lengths):
    every = [
        completion(prompts[0], 1, 0),
        completion(prompts[0], 2, 3, 0),
        completion(prompts[0], 4, 0),
        completion(prompts[0], 5, 5, 5),
    ]
    return [Ranking(tuple(every[:k]), tuple(range(k, 0, -1)), tuple(-1.0 - i for i in range(k))) for k in lengths]


def test_batches_count_pairs(prompts):
    """Rankings of 4 stand for 6 pairs each: 64 pairs are about 11 of them; of 2 for one each."""
    optim = OptimConfig(batch_size=64, micro_batch_size=32)
    of_4 = in_rankings(optim, rankings(prompts, 4, 4))
    assert (of_4.batch_size, of_4.micro_batch_size) == (11, 32)
    assert in_rankings(optim, rankings(prompts, 2, 2)) == optim


def test_rankings_of_different_length_are_laid_out_with_their_own_log_probs(gpt2, prompts):
    policy, reference, mask = ranking_log_probs(gpt2, rankings(prompts, 2, 4, 3))
    assert mask.sum(1).tolist() == [2, 4, 3]
    for row, ranking in enumerate(rankings(prompts, 2, 4, 3)):
        k = len(ranking.completions)
        assert torch.allclose(policy[row, :k], gpt2.log_prob(ranking.completions), atol=1e-5)
        assert reference[row, :k].tolist() == list(ranking.reference_logps)
