"""Which column is the user, the item, the time, the rating: from names, then from values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import polars as pl

from foretaste.data.interactions import ColumnGuess
from foretaste.data.sources import listed, nearest
from foretaste.errors import InputError


def words(text: str) -> tuple[str, ...]:
    """A table of names, written as one text."""
    return tuple(text.split())


# Names without case and separators, the most telling first: a log with both `user_id` and
# `session_id` is read by user.
USER_NAMES = words(
    "userid user uid userno usernumber customerid customer customerno clientid client "
    "reviewerid reviewer visitorid visitor memberid member accountid account buyerid shopperid "
    "consumerid personid profileid subscriberid listenerid readerid viewerid playerid msno "
    "username customerkey login cookieid deviceid anonymousid sessionid session"
)
ITEM_NAMES = words(
    "itemid item iid productid product asin parentasin articleid article movieid movie filmid "
    "film trackid track songid song artistid artist albumid bookid book isbn gameid game appid "
    "app videoid video showid newsid news postid recipeid recipe businessid restaurantid hotelid "
    "poiid poi venueid placeid locationid gmapid courseid jobid adid contentid sku stockcode "
    "productcode itemcode upc ean bundleid documentid docid pageid itemno productno"
)
TIME_NAMES = words(
    "timestamp unixreviewtime unixtime unixtimestamp epoch ts time datetime eventtime "
    "eventtimestamp timems timestampms createdat created date eventdate orderdate purchasedate "
    "invoicedate transactiondate tdat playedat listenedat watchedat ratedat ratingdate reviewdate "
    "reviewtime updatedat clicktime at when day"
)
RATING_NAMES = words(
    "rating ratings score stars star overall reviewrating userrating bookrating starrating "
    "reviewscore grade rate ratingvalue"
)
# Longer names are told by how they end (`amazon_customer_id`); below this, endings deceive.
_ENDING_LENGTH = 6
_RATING_LEVELS = 21
_RATING_LIMIT = 100
# 1990 to 2100 in seconds; times 10^3, 10^6, 10^9 for finer units. Nine-digit ids are common, and
# only values that read as a recent date may be taken for one.
_EPOCH = (631_152_000, 4_102_444_800)
_ISO = r"^\s*\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}.*)?$"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def guess_columns(
    sample: pl.DataFrame,
    place: str,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    time_col: str | None = None,
    rating_col: str | None = None,
    headed: bool = True,
) -> ColumnGuess:
    """Give every role a column of the sample.

    Options come first, then names in the order of the tables above (the leftmost column wins
    among equals), then values: a time is a date or a recent epoch, a rating is one of few small
    numbers. Users and items of a file with a header are never guessed from values; without a
    header they are the first two columns that are neither time nor rating.

    Args:
        sample: the first rows, under the source's names.
        place: the source in messages.
        user_col: the column of users; None guesses. Likewise ``item_col``.
        time_col: the column of times; None guesses and ``""`` says that there is none. Likewise
            ``rating_col``.
        headed: False when the names are ours and say nothing.

    Raises:
        InputError: a named column does not exist, one column is named for two roles, or no
            column looks like a user or an item.
    """
    asked = {"user": user_col, "item": item_col, "time": time_col, "rating": rating_col}
    _check_options(asked, sample.columns, place)
    roles: dict[str, str | None] = {role: name or None for role, name in asked.items()}
    tables = {"user": USER_NAMES, "item": ITEM_NAMES, "time": TIME_NAMES, "rating": RATING_NAMES}
    for role, table in tables.items():
        if asked[role] is None:
            roles[role] = _by_name(_free(sample, roles), table)
    by_value: dict[str, Callable[[pl.Series], bool]] = {"time": is_time, "rating": is_rating}
    unnamed = [] if headed or roles["user"] or roles["item"] else sample.columns[:2]
    for role, test in by_value.items():
        if asked[role] is None and roles[role] is None:
            free = [name for name in _free(sample, roles) if name not in unnamed]
            if headed:
                free = [name for name in free if _may_be(role, name)]
            roles[role] = next((name for name in free if test(sample[name])), None)
    if not headed:
        _by_position(sample, roles)
    user, item = roles["user"], roles["item"]
    if user is None or item is None:
        role = "user" if user is None else "item"
        raise InputError(
            f"{place}: no column looks like {'a user' if role == 'user' else 'an item'} id "
            f"(columns: {listed(sample.columns)}). Name it with --{role}-col."
        )
    guessed = tuple(role for role in roles if roles[role] and not asked[role])
    return ColumnGuess(user, item, roles["time"], roles["rating"], guessed)


def is_known_name(name: str) -> bool:
    """Whether a word is one of the names of a role."""
    word = _plain(name)
    return any(word in table for table in (USER_NAMES, ITEM_NAMES, TIME_NAMES, RATING_NAMES))


def looks_like_data(first: Sequence[str], following: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of a file is already data, not a header.

    A name we know, or a blank, makes it a header; a number or a date makes it data. Where all is
    text, a value that comes back in its own column is data.
    """
    if any(is_known_name(cell) for cell in first):
        return False
    if any(_NUMBER.fullmatch(cell) or re.match(_ISO, cell) for cell in first):
        return "" not in first
    return any(
        cell and any(len(row) > n and row[n] == cell for row in following)
        for n, cell in enumerate(first)
    )


def is_time(column: pl.Series) -> bool:
    """Whether values read as times: dates, ISO 8601 text, or epochs between 1990 and 2100."""
    if column.dtype.is_temporal():
        return column.dtype in (pl.Date, pl.Datetime)
    if column.dtype == pl.String:
        text = column.drop_nulls()
        if len(text) and text.str.contains(_ISO).all():
            return True
    numbers = _numbers(column)
    if numbers is None:
        return False
    low, high = _EPOCH
    return any(numbers.is_between(low * unit, high * unit).all() for unit in (1, 1e3, 1e6, 1e9))


def is_rating(column: pl.Series) -> bool:
    """Whether values read as ratings: at most 21 different numbers, none beyond 100."""
    numbers = _numbers(column)
    if numbers is None:
        return False
    return numbers.n_unique() <= _RATING_LEVELS and bool((numbers.abs() <= _RATING_LIMIT).all())


def _numbers(column: pl.Series) -> pl.Series | None:
    """The values as numbers; None unless every one that is present is a finite number."""
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        return None
    present = column.drop_nulls()
    if present.dtype == pl.String:
        present = present.str.strip_chars()
    numbers = present.cast(pl.Float64, strict=False)
    fit = len(numbers) > 0 and numbers.null_count() == 0 and bool(numbers.is_finite().all())
    return numbers if fit else None


def _check_options(asked: dict[str, str | None], names: list[str], place: str) -> None:
    taken: dict[str, str] = {}
    for role, name in asked.items():
        if name is None or (name == "" and role in ("time", "rating")):
            continue
        if name not in names:
            raise InputError(
                f'{place}: no column "{name}" (--{role}-col; columns: {listed(names)}).'
                f"{nearest(name, names)}"
            )
        if name in taken:
            raise InputError(
                f'{place}: column "{name}" is named for both {taken[name]} and {role}. '
                f"Name another with --{role}-col."
            )
        taken[name] = role


def _free(sample: pl.DataFrame, roles: dict[str, str | None]) -> list[str]:
    taken = set(roles.values())
    return [name for name in sample.columns if name not in taken]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _by_name(names: list[str], table: Sequence[str]) -> str | None:
    plain = {name: _plain(name) for name in names}
    for known in table:
        for name in names:
            if plain[name] == known:
                return name
    for known in table:
        if len(known) >= _ENDING_LENGTH:
            for name in names:
                if plain[name].endswith(known):
                    return name
    return None


def _may_be(role: str, name: str) -> bool:
    """Whether a name lets values decide.

    A rating must say so, since few small numbers are as often a quantity or a flag; a date must
    not be one of the item's or the user's own.
    """
    plain = _plain(name)
    if role == "rating":
        return any(word in plain for word in ("rating", "score", "stars"))
    return not any(word in plain for word in ("release", "publi", "birth", "expir"))


def _by_position(sample: pl.DataFrame, roles: dict[str, str | None]) -> None:
    for role in ("user", "item"):
        if roles[role] is None:
            roles[role] = next(iter(_free(sample, roles)), None)
