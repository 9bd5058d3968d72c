"""The command lines of the scripts: one style of help, errors in one line, exit codes.

Help texts are short sentences, and name the default unless that is empty; exit codes are at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Callable, NoReturn

from deeprnn._util.arguments import as_flags, help_text

__all__ = ["EXIT_CODES", "Parser"]

EXIT_CODES = "Exit code 0: {done}; 1: {failed}; 2: invalid arguments; 130: interrupted."


METAVARS = {int: "N", float: "X"}
"""Placeholders for values in the help, as the command line of the package has them."""


class _Help(argparse.HelpFormatter):
    """Help as the package's command line has it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=100)

    def _get_help_string(self, action: argparse.Action) -> str:
        return help_text(action)


class Parser(argparse.ArgumentParser):
    """Reports an invalid argument in one line, without the usage, exit code 2.

    Parameters
    ----------
    done, failed
        What exit codes 0 and 1 mean; shown at the end of the help.
    """

    def __init__(self, *, done: str = "", failed: str = "", **options: Any) -> None:
        options.setdefault("formatter_class", _Help)
        if done:
            codes = EXIT_CODES.format(done=done, failed=failed)
            options["epilog"] = f"{options.get('epilog', '')} {codes}".strip()
        super().__init__(allow_abbrev=False, add_help=False, **options)
        self.add_argument("-h", "--help", action="help", help="Show this help message and exit.")

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        if options.get("type") in METAVARS and "choices" not in options:
            options.setdefault("metavar", METAVARS[options["type"]])
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {as_flags(message, self.names())}\n")

    def call(self, work: Callable[[], int]) -> int:
        """Run `work` and return its exit code, or 130 after Ctrl-C.

        The process ends with exit code 2 if `work` raises ValueError, TypeError or OSError (invalid arguments), and
        with 1 for a RuntimeError. The message is printed in one line, with flags in place of argument names.
        """
        try:
            return work()
        except (ValueError, TypeError, OSError) as error:
            self.error(str(error))
        except RuntimeError as error:
            self.exit(1, f"{self.prog}: {error}\n")
        except KeyboardInterrupt:
            return 130

    def names(self) -> Iterator[str]:
        """Of all arguments, those of the commands too: the library reports an error by the name of the argument."""
        for action in self._actions:
            yield action.dest
            if isinstance(action.choices, dict):
                for command in action.choices.values():
                    yield from command.names()
