import pandas as pd
import pytest
from conftest import SHARED, needs_reviews

from suite.common.errors import UserError
from suite.data.reviews import clean, load_reviews


def write(folder, **columns):
    for split in ("train", "test"):
        pd.DataFrame(columns).to_csv(folder / f"{split}.csv", index=False)


def test_reads_folders_and_files_of_every_kind(tmp_path):
    frame = pd.DataFrame({"text": ["Good.<br /><br />Very.", "Bad."], "label": [1, 0]})
    frame.to_parquet(tmp_path / "train.parquet")
    frame.to_csv(tmp_path / "one.csv", index=False)
    frame.to_json(tmp_path / "one.jsonl", orient="records", lines=True)
    for source in (tmp_path, tmp_path / "one.csv", tmp_path / "one.jsonl"):
        reviews = load_reviews(str(source), "train")
        assert reviews.texts == ["Good.\nVery.", "Bad."]
        assert reviews.labels == [1, 0]


def test_reads_save_to_disk(tmp_path):
    import datasets

    split = datasets.Dataset.from_dict({"text": ["Fine."], "label": [1]})
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(str(tmp_path / "saved"))
    assert load_reviews(str(tmp_path / "saved"), "test").texts == ["Fine."]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["a", "b"], "label": [0, 2]}, ["train.csv", "row 1", "'label'", "2"]),
        ({"text": ["a", None], "label": [0, 1]}, ["train.csv", "row 1", "'text'"]),
        ({"words": ["a"], "label": [0]}, ["train.csv", "no column 'text'", "words"]),
    ],
)
def test_malformed_rows_are_named(tmp_path, columns, words):
    write(tmp_path, **columns)
    with pytest.raises(UserError) as caught:
        load_reviews(str(tmp_path), "train")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_missing_data_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match="save_to_disk"):
        load_reviews("nobody/nothing", "train")
    with pytest.raises(UserError, match="no train split"):
        load_reviews(str(tmp_path), "train")


def test_clean_joins_runs_of_breaks():
    assert clean(" One.<br /><br />Two.<br/> Three. ") == "One.\nTwo.\nThree."


@needs_reviews
def test_the_real_reviews():
    reviews = load_reviews(str(SHARED / "imdb"), "test")
    assert len(reviews.texts) == 25_000
    assert sum(reviews.labels) == 12_500
    assert not any("<br" in text for text in reviews.texts)
