"""The table of docs/tune.md, from what ``avo tune --json FILE`` wrote.

python -m bench.tuning.table FILE...
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def rows(record: dict[str, Any]) -> Iterator[str]:
    """Yield a row for each kernel, target and key of a record."""
    for ranking in record["rankings"]:
        timed, failed = ranking["configurations"], ranking["not_possible"]
        key = ", ".join(f"{name}={value}" for name, value in ranking["key"].items() if value != "False")
        name = f"| `{ranking['kernel']}`, {key} | {ranking['target']} | {len(timed) + len(failed)} | {len(failed)} |"
        if not timed:
            yield f"{name} | | |"
            continue
        best, worst = timed[0], timed[-1]
        spread = f"{best['us']:.4g} ({best['low_us']:.4g} to {best['high_us']:.4g})"
        options = ", ".join(f"{name}={value}" for name, value in {**best["kwargs"], **best["options"]}.items())
        yield f"{name} {spread} | {worst['us'] / best['us']:.2f} | {options} |"


def main() -> None:
    """Print the table."""
    print(
        "| kernel and key | target | tried | not possible | fastest, predicted us | slowest / fastest | the fastest |"
    )
    print("|---|---|---:|---:|---:|---:|---|")
    for file in sys.argv[1:]:
        for row in rows(json.loads(Path(file).read_text())):
            print(row)


if __name__ == "__main__":
    main()
