"""Writes a parquet file of some row groups: `python write_parquet.py FILE ROWS`."""

from __future__ import annotations

import sys

import pyarrow as pa
from pyarrow import parquet

if __name__ == "__main__":
    rows = range(int(sys.argv[2]))
    table = pa.table({"number": list(rows), "square": [row * row for row in rows]})
    parquet.write_table(table, sys.argv[1], row_group_size=2)
