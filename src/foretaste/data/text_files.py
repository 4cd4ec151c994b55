"""Bytes of a text file made safe to parse: gzip, encodings and the first lines.

Polars streams UTF-8 (gzip too) by itself but stops at the first byte that is anything else, deep
inside a long read. So one cheap pass over the bytes comes first: it finds truncated archives,
binary files and other encodings before any row is parsed.
"""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from foretaste.data.sources import SAMPLE_ROWS, plainly
from foretaste.errors import EmptyLogError, InputError

_CHUNK = 4 << 20
_HEAD_BYTES = 256 << 10
# A head must hold a header and one row; fields of millions of characters exist.
_HEAD_LIMIT = 64 << 20
# Longest first: the UTF-32 mark begins with the UTF-16 one.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ARCHIVES = (
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
)
# Control characters that no text holds; tab, line feed, form feeds and returns are text.
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1a\x1b\x1c\x1d\x1e\x1f")


@dataclass(frozen=True)
class TextFile:
    """A text file that is known to be UTF-8 from here on.

    Attributes:
        path: the file.
        place: its name in messages.
        source: what a parser is given: the path, or the whole text as UTF-8 bytes where the file
            itself is in another encoding.
        lines: the first lines, whole, without their ends.
        notes: what was decoded.
    """

    path: Path
    place: str
    source: Path | bytes
    lines: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Survey:
    empty: bool
    utf8: bool
    binary: bool
    carriage_returns_only: bool
    first_odd_byte: int | None


def first_bytes(path: Path, count: int = 16) -> bytes:
    """The first bytes of a file as they lie on the disk."""
    with path.open("rb") as stream:
        return stream.read(count)


def open_text(path: Path, place: str) -> TextFile:
    """Look a text file over and open it.

    Raises:
        InputError: the file is missing, empty, binary, an archive, or a gzip file cut short.
    """
    with plainly(place):
        mark = first_bytes(path)
        for magic, kind in _ARCHIVES:
            if mark.startswith(magic):
                raise InputError(f"{place}: this is {kind}. Unpack it and give the file inside.")
        survey, encoding = _survey(path)
        if survey.empty:
            raise EmptyLogError(f"{place}: the file is empty. Is it the right file?")
        if survey.binary:
            raise InputError(
                f"{place}: not a text file (it holds control characters). Give a CSV, TSV, JSONL "
                "or Parquet file; save other text as UTF-8."
            )
        if encoding is None and survey.utf8 and not survey.carriage_returns_only:
            return TextFile(path, place, path, _first_lines(_chunks(path)))
        data, name = _as_utf8(path, place, encoding, survey)
    notes = () if name in ("utf-8", "utf-8-sig") else (_decoded_note(name, survey),)
    return TextFile(path, place, data, _first_lines(_pieces(data)), notes)


def _decoded_note(name: str, survey: _Survey) -> str:
    if survey.first_odd_byte is None:
        return f"text decoded from {name.upper()}"
    return (
        f"text is not UTF-8 (from byte {survey.first_odd_byte:,} on): read as {name}; "
        "check accented letters"
    )


def _chunks(path: Path) -> Iterator[bytes]:
    opener = gzip.open if first_bytes(path, 2) == b"\x1f\x8b" else open
    with cast(BinaryIO, opener(path, "rb")) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _survey(path: Path) -> tuple[_Survey, str | None]:
    """One pass over the bytes; the encoding is None when no byte order mark names it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    encoding: str | None = None
    size, odd = 0, None
    binary = returns = feeds = text = False
    for chunk in _chunks(path):
        if size == 0:
            encoding = next((e for m, e in _BYTE_ORDER_MARKS if chunk.startswith(m)), None)
        wide = encoding in ("utf-16", "utf-32")
        binary |= not wide and b"\0" in chunk
        returns |= b"\r" in chunk
        feeds |= b"\n" in chunk
        text |= bool(chunk.strip())
        if odd is None and not wide:
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                # The decoder may hold up to three bytes of the chunk before.
                odd = max(0, size + error.start)
        if odd is not None:
            binary |= len(chunk.translate(None, _CONTROLS)) < len(chunk)
        size += len(chunk)
    if odd is None and encoding not in ("utf-16", "utf-32"):
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            odd = size - 1
    bare = encoding is not None and size <= len(codecs.BOM_UTF8)
    return _Survey(not text or bare, odd is None, binary, returns and not feeds, odd), encoding


def _as_utf8(path: Path, place: str, encoding: str | None, survey: _Survey) -> tuple[bytes, str]:
    """The whole text as UTF-8 in memory, and the name of the encoding that fitted.

    Windows-1252 is what "Latin-1" files hold in practice; Latin-1 itself takes any byte, so the
    last attempt always succeeds.
    """
    if survey.first_odd_byte is not None:
        candidates = ["cp1252", "latin-1"]
    else:
        candidates = [encoding or "utf-8"]
    for name in candidates:
        decoder = codecs.getincrementaldecoder(name)()
        out = io.BytesIO()
        try:
            for chunk in _chunks(path):
                out.write(decoder.decode(chunk).encode())
            out.write(decoder.decode(b"", final=True).encode())
        except UnicodeError:
            continue
        data = out.getvalue()
        if b"\0" in data or not data.strip():
            break
        return (data.replace(b"\r", b"\n") if b"\n" not in data else data), name
    kind = (encoding or "").upper()
    raise InputError(f"{place}: the text is damaged {kind}. Save it as UTF-8 and try again.")


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK))


def _first_lines(chunks: Iterator[bytes]) -> tuple[str, ...]:
    head, whole = b"", True
    for chunk in chunks:
        head += chunk
        if len(head) >= _HEAD_LIMIT or (len(head) >= _HEAD_BYTES and head.count(b"\n") >= 2):
            whole = False
            break
    if not whole and b"\n" in head:
        head = head[: head.rindex(b"\n")]
    lines = head.decode("utf-8", "ignore").split("\n", SAMPLE_ROWS)[:SAMPLE_ROWS]
    return tuple(line.rstrip("\r") for line in lines)
