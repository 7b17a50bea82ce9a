"""A process in the place of a model, for `Recogniser(command=…)`: it does as its texts say."""

from __future__ import annotations

import os
import socket
import sys
import time

import msgspec

from router.ner.frames import Closed, Reply, Request, receive, send


def main() -> None:
    model, descriptor = sys.argv[-2], int(sys.argv[-1])
    with socket.socket(fileno=descriptor) as peer:
        if model == "dies":
            sys.exit(3)
        if model == "slow-to-load":
            time.sleep(1)
        send(peer, "no such model" if model == "missing" else "")
        while True:
            try:
                texts = msgspec.msgpack.decode(receive(peer), type=Request)
            except Closed:
                return
            reply: Reply | None = [[(0, 2, "PERSON")] if text.startswith("Al") else [] for text in texts]
            match texts[0]:
                case "hang":
                    time.sleep(60)
                case "crash":
                    os._exit(9)
                case "rubbish":
                    peer.sendall(b"\x00\x00\x00\x02hi")
                    continue
                case "trickle":
                    for byte in b"\x00\x00\x00\x40" + b"x" * 63:
                        peer.sendall(bytes([byte]))
                        time.sleep(0.05)
                case "cannot":
                    reply = None
                case "too few":
                    reply = []
                case "outside":
                    reply = [[(0, 4000, "PERSON")]]
            send(peer, reply)


if __name__ == "__main__":
    main()
