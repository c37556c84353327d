"""Texts of strangers in Markdown: what a reader sees is what they say, and nothing of them works."""

import html
import re

import pytest

from suite.common.errors import shown
from suite.report.page import code, inert, page, plain
from suite.report.samples import quoted

HOSTILE = [
    "\\<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "<!-- comment", "&lt;b&gt; &#60;i&#62; &copy;",
    "![x](http://example.com/a.png)", "![x][y]", "[l](javascript:alert(1))", "[r]: http://example.com", "<http://example.com>",
    "see http://example.com, www.example.com or me@example.com", "\x1b[31mred\x1b[0m \x9b5n", "exe\u202egpj.doc", "two\rlines",
    "`code` and ``<b>``", "# no heading", "1. no list", "- no list", "* * *", "> no quotation", "~~~", "--- ", "===", "$x^2$",
    "a | b", "| --- |", "*bold* __under__ _it_ a__b_ ~~gone~~",
    "ends with a backslash\\", "5.5 points, -3 and #1", "    <b>indented</b>",
    "\\", "\\\\<b>", "\\&lt;", "\\`<b>\\`",
]  # fmt: skip
LIVE = re.compile(r"<(?!/?(?:p|blockquote|h1|code|br ?/?)>)")


def seen(markdown):
    """HTML of a page that lets HTML through, and the text that its reader sees."""
    renderer = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    made = renderer.render(markdown)
    return made, html.unescape(re.sub(r"<[^>]*>", "", made)).strip()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_quoted_text_is_seen_and_does_nothing(text):
    made, read = seen(quoted(text))
    assert not LIVE.search(made), made
    assert read.split() == " ".join(shown(line) for line in text.splitlines()).split()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_in_code_is_code_to_its_end(text):
    made, read = seen(f"Said by {code(text)}, ours.")
    assert made.startswith("<p>Said by <code>")
    assert made.endswith("</code>, ours.</p>\n")
    assert made.count("<") == 4
    assert read == f"Said by {shown(text)}, ours."


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_in_a_caption_does_nothing_and_has_one_line(text):
    made, _ = seen(f"Model {plain(text)}, ours.")
    assert not re.search(r"<(?!/?(?:p|em|strong|s)>)", made), made
    assert "\n" not in plain(text)


@pytest.mark.parametrize("word", ["http://a.b", "HTTPS://a.b", "ftp://a.b", "mailto:a", "www.a.b", "a@b.c"])
def test_an_address_is_not_made_a_link_where_addresses_are(word):
    """As in GitHub's Markdown: the mark that makes it one follows a backslash."""
    assert re.search(r"\\[:.@]", inert(word))
    assert inert(word).replace("\\", "") == word


def test_ordinary_words_are_left_as_they_are():
    text = "A film, 5.5 of 10 - not bad: what's (really) to say of my_model_2? -3 + 4 = 1; that's #1!"
    assert inert(text) == text
    assert quoted(text) == f"> {text}"


def test_every_line_of_a_text_is_quoted():
    assert quoted("\none\n\ntwo\u2028three\n") == "> one\n> \n> two\n> three"
    assert quoted("") == "> "


def test_the_title_of_a_page_is_a_strangers_too():
    assert page("a<b> against `c`", []) == "# a\\<b\\> against \\`c\\`\n"
