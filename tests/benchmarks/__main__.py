"""Measures what recording costs, and shows it beside the limits."""

from __future__ import annotations

import sys
from pathlib import Path

import click

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import api
import at_its_size
import call_page
import importing
import instructions
import long_stream
import per_call
import per_chunk
import reading
import report
import shares
import through_faults
import while_writing
import writing

MEASUREMENTS = {
    module.__name__: module
    for module in (
        *(per_chunk, shares, instructions, per_call, while_writing, through_faults),
        *(writing, at_its_size, long_stream, importing, reading, api, call_page),
    )
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(MEASUREMENTS)))
@click.option("--write-docs", is_flag=True, help="Also write docs/performance.md.")
def main(names: tuple[str, ...], write_docs: bool) -> None:
    """Measure what recording costs; NAMES picks some of the measurements."""
    machine = report.Machine()
    rows = []
    for name in names or MEASUREMENTS:
        click.echo(f"{name} …", err=True)
        rows += MEASUREMENTS[name].rows()
    machine.look_again()
    report.show(rows, machine)
    if write_docs:
        report.write(rows, machine)


main()
