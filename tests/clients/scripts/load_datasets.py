"""Data sets by the library datasets: `python load_datasets.py REPO…`; prints the rows of each split."""

from __future__ import annotations

import sys

import datasets
from telling import tell

if __name__ == "__main__":
    told = {
        repo: {split: rows.to_list() for split, rows in datasets.load_dataset(repo).items()}
        for repo in sys.argv[1:]
    }
    tell(version=datasets.__version__, rows=told)
