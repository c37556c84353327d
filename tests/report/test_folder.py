"""A results folder is drawn again from its tables, or refused in words."""

import json
import shutil
from pathlib import Path

import pytest

from suite.common.errors import UserError
from suite.report.folder import redraw

COMMITTED = Path(__file__).parents[2] / "results" / "imdb_frontier"


@pytest.mark.parametrize("lacking", ["seeds", "test_prompts"])
def test_a_folder_whose_files_are_of_two_studies_is_one_line(tmp_path, lacking):
    for name in ("measurements.parquet", "records.csv"):
        shutil.copy(COMMITTED / name, tmp_path)
    about = json.loads((COMMITTED / "study.json").read_text())
    del about[lacking]
    (tmp_path / "study.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=f"several studies, or damaged .no '{lacking}'"):
        redraw(tmp_path)
