"""What is published, and what must not be in the repository."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent.relative_to(ROOT) for path in ROOT.glob("*/**/pyproject.toml") if path.parent.parent != ROOT / ".venv")
