"""The one builder of pages."""

import math

import pandas as pd
import pytest

from suite.report.page import bullets, interval, page, table


def test_a_page_has_its_title_its_sections_and_no_empty_ones():
    text = page("Title", [("", "First.\n"), ("Empty", " \n"), ("Table", "| a |"), ("", "")])
    assert text == "# Title\n\nFirst.\n\n## Table\n\n| a |\n"


@pytest.mark.parametrize(
    ("values", "form", "text"),
    [
        ((0.8123, 0.79, 0.833), ".3f", "0.812 [0.790, 0.833]"),
        ((0.5, 0.25, 0.75), "+.2f", "+0.50 [+0.25, +0.75]"),
        ((-0.1, -0.2, 0.0), "+.1f", "-0.1 [-0.2, +0.0]"),
        ((0.5, 0.5, 0.5), ".3f", "0.500"),
        ((0.5, math.nan, math.nan), ".3f", "0.500, no interval"),
        ((math.nan, math.nan, math.nan), ".3f", "–"),
    ],
)
def test_an_interval_in_words(values, form, text):
    assert interval(*values, form) == text


def test_absent_cells_are_empty_and_a_table_without_rows_is_nothing():
    rows = table([{"a": "1e5", "b": 2}, {"a": "x"}]).splitlines()
    assert [cell.strip() for cell in rows[2].split("|")] == ["", "1e5", "2.0", ""]  # texts stay texts
    assert [cell.strip() for cell in rows[3].split("|")] == ["", "x", "", ""]
    assert table([]) == table(pd.DataFrame()) == ""


def test_a_list_has_one_line_each():
    assert bullets(["a", "b"]) == "- a\n- b"
