"""Measurements; README.md says what each is for.  None of them is part of the tests."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
