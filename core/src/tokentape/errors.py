"""What can go wrong, as one short tree.

    TokentapeError
    ├── SettingsError      a setting that is unknown or has a value that cannot be used
    ├── TapeError          the database cannot be used as a tape
    │   ├── NotATape       a folder, not SQLite, or some other application's file
    │   ├── DamagedTape    a tape that SQLite finds damaged
    │   └── NewerTape      written by a newer version of tokentape
    ├── CallNotFound       no call, or more than one, answers to that reference
    ├── StillRunning       what is to be forgotten has not ended
    └── UnsupportedSDK     an SDK outside the range an adapter supports

Every message says what, which one, and what to do next. None of these is ever raised into the loop that reads a stream.
"""

from __future__ import annotations


class TokentapeError(Exception):
    """Base of all errors that tokentape raises on purpose."""


class SettingsError(TokentapeError, ValueError):
    """A setting is unknown, or its value cannot be used."""


class TapeError(TokentapeError):
    """The database cannot be used as a tape."""


class NotATape(TapeError):
    """The path leads to a folder, to a file that is not SQLite, or to another application's database."""


class DamagedTape(TapeError):
    """SQLite finds the tape damaged."""


class NewerTape(TapeError):
    """The tape was written by a newer version of tokentape."""


class CallNotFound(TokentapeError, LookupError):
    """No call, or more than one, answers to the given reference."""


class StillRunning(TokentapeError):
    """A call or run that is to be forgotten has not ended."""


class UnsupportedSDK(TokentapeError):
    """An SDK is installed in a version that the adapter does not support."""
