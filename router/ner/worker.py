"""The process that holds a model: `python -m router.ner.worker MODEL DESCRIPTOR`, started by `router.ner.process`.

It answers over the socket with that descriptor until the other side closes it. What it prints is thrown away: a
library's warning could hold text.
"""

from __future__ import annotations

import socket
import sys

import msgspec

from router.ner.frames import Closed, Reply, Request, receive, send

_USED = frozenset({"tok2vec", "transformer", "ner", "entity_ruler", "senter", "sentencizer", "parser"})
"""The steps of a pipeline that matter to finding names."""


def main() -> None:
    model, descriptor = sys.argv[1], int(sys.argv[2])
    with socket.socket(fileno=descriptor) as peer:
        try:
            pipeline = _load(model)
        except Exception as error:  # whatever it is, the operator has to be told, and not by a traceback
            send(peer, f"{type(error).__name__}: {error}"[:500])
            return
        send(peer, "")
        try:
            while True:
                request = msgspec.msgpack.decode(receive(peer), type=Request)
                send(peer, _names(pipeline, request))
        except Closed:
            return


def _names(pipeline, texts: Request) -> Reply | None:  # type: ignore[no-untyped-def]
    """None where the model cannot do it, such as for a text that is longer than it takes."""
    try:
        return [[(e.start_char, e.end_char, e.label_) for e in doc.ents] for doc in pipeline.pipe(texts)]
    except Exception:  # one request's text must not end the process that all need
        return None


def _load(model: str):  # type: ignore[no-untyped-def]
    import spacy

    pipeline = spacy.load(model)
    if not {"ner", "entity_ruler"} & set(pipeline.pipe_names):
        raise ValueError(f"it has no step that finds names, only {', '.join(pipeline.pipe_names)}")
    for name in pipeline.pipe_names:
        if name not in _USED:
            pipeline.disable_pipe(name)
    return pipeline


if __name__ == "__main__":
    main()
