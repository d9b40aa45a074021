"""The group behind `tokentape`: imports commands when they are used, lets plugins add some, answers mistakes."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from ..errors import SettingsError, TokentapeError
from .terminal import one_line


class Mistake(click.ClickException):
    """What the user is told on one line of stderr, without traceback."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(one_line(message))
        self.exit_code = exit_code  # type: ignore[misc]  # click: one a class; ours: one a mistake


class Group(click.Group):
    """A group of commands.

    Args:
        commands_in: name of each built-in command and the module, relative to this package, that has it as `command`.
        brought_by: name of each command that a plugin brings, and the plugin, which is also the extra that installs it.
    """

    def __init__(
        self, *args: Any, commands_in: Mapping[str, str], brought_by: Mapping[str, str], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._commands_in = commands_in
        self._brought_by = brought_by
        self._has_asked_plugins = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, those of plugins among them."""
        self._ask_plugins()
        return sorted({*self._commands_in, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A built-in command, imported now; else one that a plugin has added."""
        module = self._commands_in.get(cmd_name)
        if module is not None:
            command: click.Command = importlib.import_module(module, __package__).command
            return command
        self._ask_plugins()
        if cmd_name in self._brought_by and cmd_name not in self.commands:
            return _missing(cmd_name, self._brought_by[cmd_name])
        return self.commands.get(cmd_name)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the group's own options."""
        with _answered():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _answered():
            return super().invoke(ctx)

    def _ask_plugins(self) -> None:
        if not self._has_asked_plugins:
            self._has_asked_plugins = True
            from .plugins import loaded

            loaded().call("tokentape_register_commands", cli=self)


def _missing(name: str, plugin: str) -> click.Command:
    """What answers, whatever its options, where the plugin that brings a command does not."""
    from .plugins import report

    def say(**_: Any) -> None:
        reasons = [row["reason"] for row in report() if row["name"] == plugin]
        helps = reasons[0] if reasons else f'pip install "tokentape[{plugin}]"'
        raise Mistake(f"{name} comes with the plugin {plugin}: {helps}", 1)

    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    return click.Command(name, callback=say, params=[], context_settings=settings)


@contextmanager
def _answered() -> Iterator[None]:
    """Answer what went wrong on purpose in one line: what, which, and what to do next."""
    try:
        yield
    except click.UsageError as mistake:
        if isinstance(mistake, click.exceptions.NoArgsIsHelpError):
            raise
        where = mistake.ctx.command_path if mistake.ctx is not None else "tokentape"
        message = mistake.format_message()
        raise Mistake(f"{message}{'' if message.endswith(('.', '?')) else '.'} See {where} --help", 2) from None
    except SettingsError as mistake:
        raise Mistake(str(mistake), 2) from None
    except TokentapeError as problem:
        raise Mistake(str(problem), 1) from None
    except sqlite3.Error as problem:
        from ..store.schema import is_damage

        if is_damage(problem):
            saved = "save what can be read with: tokentape recover TAPE"
            raise Mistake(f"the tape is damaged ({problem}); {saved}", 1) from None
        raise Mistake(f"the tape cannot be read ({problem}); try again, or see tokentape status", 1) from None
