"""`make run`."""

import signal
import sys


def start() -> int:
    # Importing takes a second, and there are imports that swallow a KeyboardInterrupt: until there is something to
    # end in order, Ctrl-C simply ends the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from router.demo.command import main

    return main()


if __name__ == "__main__":
    sys.exit(start())
