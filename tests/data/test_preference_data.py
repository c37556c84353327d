import pytest
import torch
from conftest import completion

from suite.data.batching import collate
from suite.data.preference_data import Completion


def test_rows_by_hand(prompts):
    batch = collate([completion(prompts[0], 2, 0), completion(prompts[1], 5)])
    assert batch.input_ids.tolist() == [[3, 1, 2, 0, 0], [4, 2, 3, 5, 5]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert batch.completion_mask.tolist() == [[False, False, True, True, False], [False, False, False, False, True]]


def test_masks_go_by_length_not_by_token_id(prompts):
    """EOS is also what padding holds; it is supervised exactly where it is a completion's last token."""
    with_eos, without = collate([completion(prompts[2], 1, 0)]), collate([completion(prompts[2], 1)])
    assert int(with_eos.completion_mask.sum()) == 2
    assert with_eos.input_ids[with_eos.completion_mask].tolist() == [1, 0]
    assert int(without.completion_mask.sum()) == 1


@pytest.mark.parametrize("part", ["prompt", "completion"])
def test_empty_parts_are_refused_by_name(prompts, part):
    prompt = prompts[0] if part == "completion" else type(prompts[0])("a", (), "")
    bad = Completion(prompt, () if part == "completion" else (1,), "", truncated=True)
    with pytest.raises(ValueError, match=f"'a': empty {part}"):
        collate([bad])


def test_to_moves_every_tensor(prompts):
    moved = collate([completion(prompts[0], 1)]).to("meta")
    for name in ("input_ids", "attention_mask", "position_ids", "completion_mask"):
        assert getattr(moved, name).device == torch.device("meta")
