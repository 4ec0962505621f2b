"""The demo's results as a table with a small chart."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.demo.course import Results, Way
from headrace.demo.meaning import QUESTION

_BAR_COLUMNS = 24


def show(results: Results, console: Console) -> None:
    """Print everything the demo found out, in 80 columns."""
    slowest = max(way.seconds for way in results.ways)
    title = f"{results.repo}: {results.files} files, {results.bytes / 1e6:.1f} MB"
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    table.add_column("way", no_wrap=True)
    for name in ("seconds", "MB/s", "faster"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("time", no_wrap=True)
    for way in results.ways:
        table.add_row(*_row(way, slowest))
    console.print(table)
    for way in results.ways:
        if way.measured_bytes < way.bytes:
            told = f"* {way.measured_bytes / 1e6:.0f} MB were measured, the rest is reckoned at the rate they came"
            console.print(Text(told))
    console.print(
        "Headrace verified every byte against the hub's digests; one connection alone verifies nothing."
    )
    _show_answer(results, console)


def _show_answer(results: Results, console: Console) -> None:
    if results.answer is None:
        console.print(Text(f"The model was not put to work: {results.no_answer}"))
        return
    millions = results.answer.parameters / 1e6
    console.print(f"\nPyTorch, {millions:.1f} million parameters from the verified cache, no network:\n")
    console.print(Text(f"  {QUESTION}", style="bold"))
    for score, sentence in results.answer.ranking:
        console.print(Text(f"  {score:5.2f}  {sentence}"))


def _row(way: Way, slowest: float) -> tuple[str, ...]:
    name = way.name + (" *" if way.measured_bytes < way.bytes else "")
    bar = "█" * max(1, round(_BAR_COLUMNS * way.seconds / slowest))
    faster = f"{slowest / way.seconds:.1f} x"
    return name, f"{way.seconds:.1f}", f"{way.bytes / 1e6 / way.seconds:.1f}", faster, bar
