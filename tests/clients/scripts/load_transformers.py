"""A sharded model and its tokenizer by transformers, of whichever version runs this, twice: `REPO FOLDER`.

The second time nothing may be asked. The chat templates that transformers looks for are not there.
"""

from __future__ import annotations

import sys
from typing import Any

import transformers
from telling import digest_of_tensors, tell
from transformers import AutoModel, AutoTokenizer


def load(**options: Any) -> dict[str, Any]:
    repo, folder = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(repo, cache_dir=folder, **options)
    model = AutoModel.from_pretrained(repo, cache_dir=folder, **options)
    return {
        "words": tokenizer.tokenize("water wheel"),
        "template": tokenizer.chat_template,
        "tensors": digest_of_tensors(model.state_dict()),
    }


if __name__ == "__main__":
    tell(version=transformers.__version__, there=load(), offline=load(local_files_only=True))
