"""The drill instructor's port: faults, tokens and the log of a running hub, under `/_chaos/`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from headrace.testing.access import Access
from headrace.testing.answer import Answer, Request, json_answer, refusal
from headrace.testing.book import FaultBook
from headrace.testing.faults import Fault
from headrace.testing.requestlog import Ledger

PREFIX = "_chaos"


@dataclass(frozen=True)
class ControlSite:
    """Answers on a port of its own, so that no client under test can reach it by accident.

    `PUT /_chaos/faults` and `PUT /_chaos/tokens` replace what was there; `GET /_chaos/log` and
    `DELETE /_chaos/log` read and empty the log.
    """

    book: FaultBook
    access: Access
    ledger: Ledger

    def answer(self, request: Request) -> Answer:
        """Do what is asked; 400 explains what is wrong with it."""
        try:
            return self._do(request)
        except (ValueError, TypeError) as error:
            return refusal(400, str(error))

    def _do(self, request: Request) -> Answer:
        match (request.method, request.segments):
            case ("GET", ("_chaos", "log")):
                return json_answer(self.ledger.dump())
            case ("DELETE", ("_chaos", "log")):
                self.ledger.clear()
            case ("PUT", ("_chaos", "faults")):
                self.book.replace([Fault(**fault) for fault in json.loads(request.body)])
            case ("PUT", ("_chaos", "tokens")):
                self.access.grant(json.loads(request.body))
            case _:
                return refusal(404, f"nothing at {request.path}")
        return Answer(204)
