"""A script's arguments, and its exit code."""

from __future__ import annotations

import argparse
from typing import Callable, NoReturn

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def call(self, work: Callable[[], int]) -> int:
        """The exit code of `work`, or 130 for Ctrl-C; it ends here, 2 for arguments that cannot be, 1 for a failure."""
        try:
            return work()
        except (ValueError, TypeError, OSError) as error:
            self.error(str(error))
        except RuntimeError as error:
            self.exit(1, f"{self.prog}: {error}\n")
        except KeyboardInterrupt:
            return 130
