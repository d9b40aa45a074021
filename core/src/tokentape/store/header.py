"""The pages of a tape that say where its tables are: found in what is left of one, and put in place of damaged ones.

Every tape of one format begins with the same ones: its tables are made in the same order in an empty file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Of SQLite's file format: an inner page of a table's tree, and where things are on a page and in the header.
_INNER: Final = 0x05
_LEAF: Final = 0x0D
# Set in every byte of a number but the last.
_GOES_ON: Final = 0x80
SIZE: Final = 100
_BEGINNING: Final = b"SQLite format 3\0"
_FORMAT: Final = slice(60, 64)
_PAGE_SIZE: Final = slice(16, 18)
_PAGE_COUNT: Final = slice(28, 32)
_FREE_PAGES: Final = slice(32, 40)
_APPLICATION: Final = slice(68, 72)
# As SQLite makes pages unless told otherwise, and so many at the beginning of a file hold the schema.
_USUAL_SIZE: Final = 4096
_LOOKED_AT: Final = 64


def format_of(header: bytes) -> int:
    """What stands in `user_version`; 0 where the header is damaged itself."""
    return int.from_bytes(header[_FORMAT]) if header.startswith(_BEGINNING) else 0


def looks_like_a_tape(path: Path, application_id: int, table: bytes) -> bool:
    """Whether a file that SQLite cannot open was a tape: its header says so, or a page of the schema is left.

    To be asked once that has failed: closing the file drops the locks that this process may still have on it.

    Args:
        path: the file.
        application_id: what a tape's header has.
        table: name of a table that only tapes have.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_USUAL_SIZE * _LOOKED_AT)
    except OSError:
        return False
    if beginning.startswith(_BEGINNING):
        return int.from_bytes(beginning[_APPLICATION]) == application_id
    pages = (beginning[at : at + _USUAL_SIZE] for at in range(0, len(beginning), _USUAL_SIZE))
    return any(page[0] == _LEAF and table in page for page in pages)


def transplant(healthy: Path, damaged: Path) -> None:
    """Overwrite the pages of the schema with those of another tape, which is empty, of the same format.

    Args:
        healthy: a tape that is closed.
        damaged: a copy; what else is in it stays.
    """
    pages = healthy.read_bytes()
    size = int.from_bytes(pages[_PAGE_SIZE])
    with damaged.open("r+b") as file:
        # One that was cut off has its schema behind its end by now.
        count = max(os.fstat(file.fileno()).st_size, len(pages)) // size
        for number in _schema_pages(pages, size):
            page = bytearray(pages[(number - 1) * size : number * size])
            if number == 1:
                page[_PAGE_COUNT] = count.to_bytes(4)
                page[_FREE_PAGES] = bytes(8)  # whichever are free, nobody looks for them in a copy
            file.seek((number - 1) * size)
            file.write(page)


def _schema_pages(pages: bytes, size: int) -> list[int]:
    """Numbers of the pages of the tree that begins on page 1, and of those that its long statements run over to."""
    found, waiting = [], [1]
    while waiting:
        number = waiting.pop()
        found.append(number)
        page = pages[(number - 1) * size : number * size]
        begin = SIZE if number == 1 else 0
        count = int.from_bytes(page[begin + 3 : begin + 5])
        is_inner = page[begin] == _INNER
        first = begin + (12 if is_inner else 8)
        cells = [int.from_bytes(page[at : at + 2]) for at in range(first, first + 2 * count, 2)]
        if is_inner:
            waiting += [int.from_bytes(page[at : at + 4]) for at in (begin + 8, *cells)]
        else:
            found += [over for cell in cells for over in _overflow(pages, page, cell)]
    return found


def _overflow(pages: bytes, page: bytes, cell: int) -> Iterator[int]:
    """The pages that the payload of a leaf's cell runs over to (https://www.sqlite.org/fileformat2.html, 1.6)."""
    size = len(page)
    payload, at = _varint(page, cell)
    _, at = _varint(page, at)
    if payload <= size - 35:
        return
    least = (size - 12) * 32 // 255 - 23
    here = least + (payload - least) % (size - 4)
    at += here if here <= size - 35 else least
    number = int.from_bytes(page[at : at + 4])
    while number:
        yield number
        number = int.from_bytes(pages[(number - 1) * size : (number - 1) * size + 4])


def _varint(page: bytes, at: int) -> tuple[int, int]:
    """A number of SQLite's variable length, of up to eight bytes, and where it ends."""
    value = 0
    while True:
        byte = page[at]
        value, at = value << 7 | byte & 0x7F, at + 1
        if not byte & _GOES_ON:
            return value, at
