"""Block lists asked for before anything has arrived: from the trusted source, those that it has at hand.

Whoever reads what arrives waits for the answer, so nobody waits for a list that has yet to be made, and the first
answer speaks for all: a source that leads to no list of one file is no node, and is not asked about the others.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from headrace.blocklist import BlockList
from headrace.errors import HeadraceError
from headrace.source.contract import BlockListing, Content
from headrace.source.http import Dialer, HttpSession
from headrace.transfer.hashing import Answer, Workers

_AT_ONCE = 8
_PATIENCE_S = 5.0  # for all of them; a model is being waited for


def lists_at_hand(
    lister: BlockListing, contents: Sequence[Content], dialer: Dialer
) -> Iterator[tuple[Content, BlockList | None]]:
    """Each content with its list, None where none can be had now; in any order, within some seconds."""
    until = time.monotonic() + _PATIENCE_S
    open_questions = {str(one.entry.digest): one for one in contents}
    sessions = [HttpSession(dialer) for _ in range(min(_AT_ONCE, len(contents)))]
    free: queue.SimpleQueue[HttpSession] = queue.SimpleQueue()
    for session in sessions:
        free.put(session)
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    workers = Workers(answers.put, _AT_ONCE)
    try:
        for number, (key, content) in enumerate(list(open_questions.items())):
            workers.run(key, _asking(lister, content, free))
            if number == 0:
                first = _answer(answers, until)
                if first is not None:
                    yield open_questions.pop(key), _list_in(first)
                if first is None or first.result is None:
                    break
        else:
            while open_questions and (answer := _answer(answers, until)) is not None:
                yield open_questions.pop(str(answer.owner)), _list_in(answer)
    finally:
        for session in sessions:
            session.abort()
        workers.close()
    yield from ((content, None) for content in open_questions.values())


def _asking(
    lister: BlockListing, content: Content, free: queue.SimpleQueue[HttpSession]
) -> Callable[[], BlockList | HeadraceError | None]:
    def work() -> BlockList | HeadraceError | None:
        session = free.get()
        try:
            return lister.blocks(content, session)
        except HeadraceError as error:
            return error
        finally:
            session.close()
            free.put(session)

    return work


def _answer(answers: queue.SimpleQueue[Answer], until: float) -> Answer | None:
    """The next one; None where there is none by then: who has not answered yet is not waited for."""
    with suppress(queue.Empty):
        return answers.get(timeout=max(0.0, until - time.monotonic()))
    return None


def _list_in(answer: Answer) -> BlockList | None:
    return answer.result if isinstance(answer.result, BlockList) else None
