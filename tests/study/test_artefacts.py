"""A run whose files are not what it left is neither sampled from nor exported."""

import pytest

from suite.common.errors import UserError
from suite.engine.store import RunSpec, open_run
from suite.study.artefacts import find_run, pairs_of


def test_a_damaged_run_is_named_where_it_is_asked_for_by_its_key(tmp_path):
    with open_run(tmp_path, RunSpec("pairs", {})) as run:
        (run.directory / "pairs.parquet").write_text("pairs")
        run.finish()
    key = run.directory.name
    assert find_run(key[:8], tmp_path) == run.directory
    (run.directory / "pairs.parquet").write_text("pai")
    for ask in (find_run, pairs_of):
        with pytest.raises(UserError, match=f"{key}: pairs.parquet has 3 of 5 bytes; start the study that made it again"):
            ask(key[:8], tmp_path)
