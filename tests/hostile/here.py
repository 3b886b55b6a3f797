"""What stands on this computer: settings."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cloudtrain.config import settings as config
from cloudtrain.config.table import SETTINGS
from tests.hostile.odd import Parser, odd


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value) if not isinstance(value, int) or abs(value) < 10**100 else "1" + "0" * 400
    return json.dumps(value if isinstance(value, str) else "").replace("\x7f", "\\u007f")


def setting(told: tuple[str, Any]) -> None:
    """A value of a settings file, and in the environment."""
    name, value = told
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cloudtrain.toml"
        path.write_text(f"{name} = {_toml(value)}\n", encoding="utf-8", errors="surrogatepass")
        config.load({}, folder=Path(folder), environment={}).origins()
    config.load({}, environment={f"CLOUDTRAIN_{name.upper()}": str(value)[:2000]}).origins()


PARSERS = {"settings": Parser(setting, st.tuples(st.sampled_from([*sorted(SETTINGS), "no_such"]), odd), costs=3)}
