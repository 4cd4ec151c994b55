"""Three models on the embedded films, compared user by user, and a report.

python examples/compare_models.py
"""

from pathlib import Path

from foretaste import Recipe, compare, train
from foretaste.reporting import write_report

folder = Path("runs/example")
runs = []
for name in ("popularity", "markov", "itemknn"):
    recipe = Recipe.build({"model": {"name": name}, "split": {"min_item_count": 3}})
    runs.append(train(recipe, folder / name).path)

comparison = compare(runs, metric="ndcg@10")
for row in comparison.rows:
    print(f"{row.model:<12} {row.value:.4f} ({row.low:.4f} to {row.high:.4f})")
for pair in comparison.pairs:
    print(f"{pair.a} - {pair.b}: {pair.difference:+.4f}, p {pair.p_holm:.4f}")
print("report:", write_report(runs, folder / "report.html"))
