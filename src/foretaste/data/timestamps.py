"""Any column of times to milliseconds since 1970."""

from __future__ import annotations

import polars as pl

from foretaste.data.sources import first_row, rows_where, shown
from foretaste.errors import InputError

# The unit of an epoch is told by its size: below 10^11 it is seconds (until the year 5138), then
# every factor of 1000 is the next finer unit. Milliseconds of 1970-1973 would be misread; logs
# have none.
_UNITS = (("seconds", 1e11), ("milliseconds", 1e14), ("microseconds", 1e17), ("nanoseconds", 1e20))
# Below this a number may be a zero or a small step in any unit, so it proves no mixture.
_TELLING = 1e8
# The last millisecond of the year 9999, the last that a date can show.
_LAST = 253_402_300_799_999
_WAY_OUT = "Mend the value, or name another column with --time-col."
# Dates written as one number, from 1900 to 2100. As epochs they would lie in August 1970, in 1976
# and after the year 2500.
_COMPACT = (
    (19_000_101, 21_001_231, "%Y%m%d"),
    (190_001_010_000, 210_012_312_359, "%Y%m%d%H%M"),
    (19_000_101_000_000, 21_001_231_235_959, "%Y%m%d%H%M%S"),
)
_SLICE = 1_000_000
# Tried in turn on what the ones before left; with %#z a zone may be Z, +02, +0200 or +02:00.
_LAYOUTS = (
    ("%Y-%m-%d %H:%M:%S%.f", False),
    ("%Y-%m-%d %H:%M:%S%.f%#z", True),
    ("%Y-%m-%d", False),
    ("%Y-%m-%d %H:%M", False),
    ("%Y-%m-%d %H:%M%#z", True),
)


def to_milliseconds(column: pl.Series, place: str) -> pl.Series:
    """Convert a column of times to Int64 milliseconds since 1970, UTC.

    Understood are epochs in seconds, milliseconds, microseconds or nanoseconds (numbers or
    numeric text, the unit by size), ``20130401`` and ``20130401165500``, ISO 8601 text with or
    without a zone, and Polars dates and datetimes. A time without a zone is taken as UTC.

    Args:
        column: the values; nulls are errors.
        place: the source in messages.

    Raises:
        InputError: naming the first value that is no time, and its row.
    """
    _require_present(column, place)
    if column.dtype == pl.Date or column.dtype == pl.Datetime:
        return column.cast(pl.Datetime("ms", getattr(column.dtype, "time_zone", None))).dt.epoch(
            "ms"
        )
    if column.dtype == pl.String:
        return _from_text(column, place)
    if column.dtype.is_integer():
        return _from_numbers(column.cast(pl.Int64, strict=False), column, place)
    if column.dtype.is_numeric():
        return _from_numbers(column.cast(pl.Float64), column, place)
    raise InputError(
        f'{place}: column "{column.name}" holds {column.dtype} values, not times. {_WAY_OUT}'
    )


def _require_present(column: pl.Series, place: str) -> None:
    missing = column.is_null()
    if column.dtype.is_float():
        missing = missing | column.is_nan()
    if missing.any():
        raise InputError(
            f'{place}: column "{column.name}" has no time in {rows_where(missing)}. Leave those '
            'rows out, or say --time-col "" to use the order.'
        )


def _from_text(column: pl.Series, place: str) -> pl.Series:
    text = column.str.strip_chars()
    whole = text.cast(pl.Int64, strict=False)
    if whole.null_count() == 0:
        return _from_numbers(whole, column, place)
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count() == 0:
        return _from_numbers(numbers, column, place)
    # By slices: a date as text takes several times the memory of its milliseconds.
    parts = [_from_iso(text.slice(at, _SLICE)) for at in range(0, len(text), _SLICE)]
    times = pl.concat(parts).rename(column.name)
    if times.null_count():
        # In a column of epochs the odd one out is the text; otherwise it is what is not ISO.
        mostly_numbers = numbers.null_count() * 2 <= len(numbers)
        raise _not_a_time(column, numbers.is_null() if mostly_numbers else times.is_null(), place)
    return times


def _from_iso(text: pl.Series) -> pl.Series:
    plain = (
        text.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})[Tt]", "${1} ")
        .str.replace(r"\s*(UTC|GMT|[Zz])$", "+00:00")
        .str.replace(r"(:\d{2}),(\d+)", "${1}.${2}")
        .str.replace(r"\s+([+-]\d{2}:?\d{0,2})$", "${1}")
    )
    times = pl.Series(text.name, [None], dtype=pl.Int64).new_from_index(0, len(text))
    for layout, zoned in _LAYOUTS:
        open_rows = times.is_null()
        if not open_rows.any():
            break
        parsed = plain.str.to_datetime(
            layout, strict=False, time_unit="ms", time_zone="UTC" if zoned else None
        )
        times = times.zip_with(~open_rows, parsed.dt.epoch("ms"))
    return times


def _from_numbers(numbers: pl.Series, column: pl.Series, place: str) -> pl.Series:
    if numbers.dtype.is_float() and not numbers.is_finite().all():
        raise _not_a_time(column, ~numbers.is_finite(), place)
    if numbers.null_count():
        raise _not_a_time(column, numbers.is_null(), place)
    dates = _compact_dates(numbers)
    if dates is not None:
        return dates
    # Int64 has a lowest value without a positive twin; as floats all have one.
    size = numbers.cast(pl.Float64).abs()
    largest = float(size.max() or 0.0)  # type: ignore[arg-type]
    unit = next((n for n, (_, limit) in enumerate(_UNITS) if largest < limit), None)
    if unit is None:
        raise _not_a_time(column, size >= _UNITS[-1][1], place)
    floor = _UNITS[unit - 1][1] if unit else 0.0
    finer = (size >= _TELLING) & (size < floor)
    if finer.any():
        row = first_row(finer)
        raise InputError(
            f'{place}: time "{shown(column[row - 1])}" (data row {row}) is not in {_UNITS[unit][0]}'
            f' as the largest, "{shown(column[int(size.arg_max() or 0)])}", is. {_WAY_OUT}'
        )
    return _scaled(numbers, unit, column, place)


def _scaled(numbers: pl.Series, unit: int, column: pl.Series, place: str) -> pl.Series:
    if unit == 0:
        times = numbers * 1000
    elif unit == 1:
        times = numbers
    elif numbers.dtype.is_float():
        times = numbers / 1000 ** (unit - 1)
    else:
        times = numbers // 1000 ** (unit - 1)
    beyond = times.cast(pl.Float64).abs() > _LAST
    if beyond.any():
        raise _not_a_time(column, beyond, place)
    if times.dtype.is_float():
        times = times.round(0)
    return times.cast(pl.Int64).rename(column.name)


def _compact_dates(numbers: pl.Series) -> pl.Series | None:
    """``20130401`` and the like as dates, when all values are; None else."""
    for low, high, layout in _COMPACT:
        if not numbers.dtype.is_float() and numbers.is_between(low, high).all():
            text = numbers.cast(pl.String)
            dates = text.str.to_datetime(layout, strict=False, time_unit="ms")
            if not dates.null_count():
                return dates.dt.epoch("ms").rename(numbers.name)
    return None


def _not_a_time(column: pl.Series, mask: pl.Series, place: str) -> InputError:
    row = first_row(mask)
    return InputError(
        f'{place}: time "{shown(column[row - 1])}" in column "{column.name}" (data row {row}) is '
        f"neither a number of seconds or milliseconds nor an ISO 8601 date. {_WAY_OUT}"
    )
