"""Figures as files, with captions: the same tables give the same files."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.common.files import write_atomically

CHARACTERS_PER_INCH = 17.3
"""Of a caption line."""


def captioned(figure: Any, title: str, caption: Sequence[str]) -> None:
    """Title above, caption below, and the axes between them."""
    width, height = figure.get_size_inches()
    lines = [line for text in caption for line in textwrap.wrap(text, width=int(CHARACTERS_PER_INCH * width))]
    figure.suptitle(title, fontsize=11)
    figure.text(0.02, 0.01, "\n".join(lines), fontsize=7, va="bottom")
    below = 0.56 + 0.122 * len(lines)
    figure.subplots_adjust(left=0.74 / width, right=0.98, top=1 - 0.5 / height, bottom=below / height, wspace=0.08)


def _as_written(figure: Any) -> None:
    """Names with dollars are no formulas; labels of ticks, which matplotlib writes itself, may be some."""
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    ours = [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts)]
    for text in [*figure.texts, *ours, *(text for legend in legends if legend for text in legend.get_texts())]:
        text.set_parse_math(False)


@contextmanager
def figure_file(
    path: Path, size: tuple[float, float], *, columns: int = 1, rows: int = 1, share: bool = True, png: bool = False
) -> Iterator[tuple[Any, Any, list[Path]]]:
    """A figure with axes; written as SVG, and as PNG if asked for, when the block ends."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        figure, axes = pyplot.subplots(rows, columns, figsize=size, sharey="row" if share and columns == 2 else False)
        written: list[Path] = []
        try:
            yield figure, axes, written
            _as_written(figure)
            writers: dict[str, Callable[[Path], Any]] = {
                ".svg": lambda target: figure.savefig(target, format="svg", metadata={"Date": None})
            }
            if png:
                writers[".png"] = lambda target: figure.savefig(target, format="png", dpi=160)
            for suffix, write in writers.items():
                write_atomically(path.with_suffix(suffix), write)
                written.append(path.with_suffix(suffix))
        finally:
            pyplot.close(figure)
