"""From a frame in memory to recommendations, without files.

python examples/from_a_frame.py
"""

import polars as pl

from foretaste import Dataset, Recommender, RunContext, read_interactions, split
from foretaste.recommenders.core.registry import find

frame = pl.DataFrame(
    {
        "user": [f"u{number % 40}" for number in range(600)],
        "item": [f"i{(number * 7 + number // 40) % 30}" for number in range(600)],
        "time": [1_700_000_000 + 60 * number for number in range(600)],
    }
)
dataset = Dataset.from_interactions(read_interactions(frame))
print(dataset)

parts = split(dataset)
model: Recommender = find("itemknn")(neighbours=20)
model.fit(parts, RunContext(seed=0))

# A user who is not in the log, an id that is not in the catalog, and nobody at all.
lists = model.recommend([["i3", "i10"], ["i3", "no such item"], []], k=3)
for query, items in enumerate(lists.item_ids):
    print(items, f"({lists.unknown[query]} unknown)")
