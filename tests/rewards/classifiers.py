"""A small text classifier, fitted at test time: praise is positive, blame is negative."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

PRAISE = ["wonderful", "loved", "superb", "brilliant", "joy"]
BLAME = ["terrible", "hated", "awful", "boring", "waste"]
REST = ["film", "this", "is", "was", "it", "i", "the", "a", ".", ","]


def classifier(folder: Path) -> None:
    """Save one with labels NEGATIVE and POSITIVE into a folder."""
    words = ["[PAD]", "[UNK]", *PRAISE, *BLAME, *REST]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=64, pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1},
        )  # fmt: skip
        model = BertForSequenceClassification(config)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(150):
            ids = torch.cat([torch.ones(32, 2, dtype=torch.long), torch.randint(12, len(words), (32, 6))], dim=1)
            labels, place = torch.arange(32) % 2, torch.randint(0, 8, (32,))
            ids[torch.arange(32), place] = torch.where(labels == 1, torch.randint(2, 7, (32,)), torch.randint(7, 12, (32,)))
            functional.cross_entropy(model(input_ids=ids).logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
