"""``python -m reward_design`` is the command ``reward-design``."""

import sys

from reward_design.cli import main

if __name__ == "__main__":
    sys.exit(main())
