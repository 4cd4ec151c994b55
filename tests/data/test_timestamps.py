"""Times of every kind to milliseconds, with known answers."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.data.timestamps import to_milliseconds
from foretaste.errors import InputError

NOON = 1_364_817_600_000  # 2013-04-01 12:00:00 UTC


def converted(values: list, dtype=None) -> list[int]:
    times = to_milliseconds(pl.Series("when", values, dtype=dtype), "log.csv")
    assert times.dtype == pl.Int64
    assert times.name == "when"
    return times.to_list()


@pytest.mark.parametrize(
    "value",
    [
        1_364_817_600,
        1_364_817_600_000,
        1_364_817_600_000_000,
        1_364_817_600_000_000_000,
        1_364_817_600.0,
        1.3648176e12,
        "1364817600",
        " 1364817600 ",
        "1364817600.0",
        "1.3648176e9",
        "1364817600000",
        "2013-04-01T12:00:00Z",
        "2013-04-01T12:00:00",
        "2013-04-01 12:00",
        "2013-04-01 12:00:00.000000",
        "2013-04-01T12:00:00,000",
        "2013-04-01T14:00:00+02:00",
        "2013-04-01 14:00:00+0200",
        "2013-04-01 14:00:00 +02",
        "2013-04-01T08:00-04:00",
        "2013-04-01 12:00:00 UTC",
        "20130401120000",
        20_130_401_120_000,
        201_304_011_200,
        datetime(2013, 4, 1, 12),
        datetime(2013, 4, 1, 12, tzinfo=UTC),
    ],
)
def test_every_way_to_write_one_moment(value):
    assert converted([value]) == [NOON]


@pytest.mark.parametrize("value", ["2013-04-01", "20130401", 20_130_401, date(2013, 4, 1)])
def test_a_plain_date_is_its_midnight(value):
    assert converted([value]) == [NOON - 12 * 3_600_000]


def test_fractions_of_a_second_round_to_milliseconds():
    assert converted([1_364_817_600.2504]) == [NOON + 250]
    assert converted(["2013-04-01 12:00:00.250"]) == [NOON + 250]
    assert converted([1_364_817_600_123_456]) == [NOON + 123]


def test_small_steps_keep_their_order_as_seconds():
    assert converted([0, 1, 2, 40]) == [0, 1_000, 2_000, 40_000]


def test_eight_digits_that_are_no_date_are_seconds():
    assert converted([20_139_901]) == [20_139_901_000]


def test_zoned_and_plain_text_may_stand_in_one_column():
    assert converted(["2013-04-01T12:00:00Z", "2013-04-01", "2013-04-01 14:00:00+02:00"]) == [
        NOON,
        NOON - 12 * 3_600_000,
        NOON,
    ]


def test_a_zoned_column_counts_from_utc():
    paris = pl.Series("when", [datetime(2013, 4, 1, 14)]).dt.replace_time_zone("Europe/Paris")
    assert to_milliseconds(paris, "log").to_list() == [NOON]


@pytest.mark.parametrize(
    ("values", "value", "row"),
    [
        (["1364817600", "yesterday", "1364817601"], "yesterday", 2),
        (["2013-04-01", "2013-04-02", "soon"], "soon", 3),
        (["2013-04-01", "2013-13-01"], "2013-13-01", 2),
        (["1364817600", "1364817601", "2013-04-01"], "2013-04-01", 3),
        (["04/01/2013"], "04/01/2013", 1),
        ([1_364_817_600.0, float("inf")], "inf", 2),
        (["1364817600", "-inf"], "-inf", 2),
        (["1364817600", "nan"], "nan", 2),
        ([1e300], "1e+300", 1),
        (["99999999999999999999999"], "99999999999999999999999", 1),
        ([1_364_817_600_000, 1_364_817_600], "1364817600", 2),
    ],
)
def test_what_is_no_time_is_named_with_its_row(values, value, row):
    with pytest.raises(InputError) as caught:
        converted(values)
    message = str(caught.value)
    assert message.startswith("log.csv: ")
    assert f'"{value}"' in message
    assert f"data row {row}" in message
    assert "--time-col" in message
    assert "\n" not in message


@pytest.mark.parametrize("values", [["1", None], [1, None], [1.0, float("nan")]])
def test_missing_times_are_counted(values):
    with pytest.raises(InputError, match=r'column "when" has no time in 1 row .*data row 2'):
        converted(values)


@pytest.mark.parametrize("values", [[True], [timedelta(1)], [[1]], [b"1"]])
def test_other_types_are_refused(values):
    with pytest.raises(InputError, match="not times"):
        converted(values)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(978_307_200_000, 4_102_444_799_999), min_size=1, max_size=20))
def test_milliseconds_survive_as_numbers_text_and_dates(times):
    assert converted(times) == times
    assert converted([str(time) for time in times]) == times
    moments = [datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=time) for time in times]
    assert converted([moment.isoformat() for moment in moments]) == times
    assert converted(moments) == times


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.lists(st.text(max_size=12), min_size=1, max_size=4),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
        st.lists(st.floats(), min_size=1, max_size=4),
    )
)
def test_anything_else_ends_in_times_or_one_line(values):
    try:
        times = converted(values)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(times) == len(values)
        assert None not in times
