"""The question at the end of the road: which sentence is nearest in meaning?"""

from __future__ import annotations

from dataclasses import dataclass

import headrace
from headrace.settings import Settings

QUESTION = "Why does it take so long until a language model has arrived?"
SENTENCES = (
    "Download it once to a mirror nearby, and fetch it from there.",
    "The mill race brings water from the river to the wheel.",
    "Large neural networks take long to transfer over thin connections.",
    "My grandmother bakes bread on Sundays.",
)


@dataclass(frozen=True)
class Answer:
    """The sentences with their cosine similarity to the question, best first, and what the model weighs."""

    ranking: tuple[tuple[float, str], ...]
    parameters: int


def rank(repo: str, settings: Settings) -> Answer:
    """Load the model and its tokenizer from the cache alone, and rank the sentences.

    Mean pooling over the attended tokens, then cosine similarity: the model's own recipe.

    Raises:
        LoadError: this is no model that embeds text.
    """
    import torch  # noqa: PLC0415  # seconds of import: not before the transfers have been timed
    import transformers  # noqa: PLC0415

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    tokenizer = headrace.load(transformers.AutoTokenizer, repo, settings=settings)
    model = headrace.load(transformers.AutoModel, repo, settings=settings)
    tokens = tokenizer([QUESTION, *SENTENCES], padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    scores = (vectors[1:] @ vectors[0]).tolist()
    ranking = sorted(zip(scores, SENTENCES, strict=True), reverse=True)
    return Answer(tuple(ranking), sum(one.numel() for one in model.parameters()))
