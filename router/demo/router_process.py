"""The demo's router: `pointsman serve`, ended when the demo ends however that ends."""

import sys

from router.demo.lifeline import live_with_parent

if __name__ == "__main__":
    live_with_parent()
    from router.cli import main

    sys.exit(main(["serve", *sys.argv[1:]]))
