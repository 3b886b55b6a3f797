"""Packages made for a test: real wheels, small, in a folder that is all the index there is."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

_BACKEND = """
import zipfile
def get_requires_for_build_wheel(settings=None):
    return []
def build_wheel(folder, settings=None, metadata=None):
    name, info = "{name}-{version}-py3-none-any.whl", "{name}-{version}.dist-info"
    with zipfile.ZipFile(folder + "/" + name, "w") as archive:
        archive.writestr("{name}.py", "version = '{version}'\\n")
        archive.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n{needs}")
        archive.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(info + "/RECORD", "")
    return name
"""


def source(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """A package that comes as source alone, and must run to tell that it `requires` another."""
    backend = _BACKEND.format(name=name, version=version, needs=f"Requires-Dist: {requires}\\n" if requires else "")
    files = {
        "PKG-INFO": f"Metadata-Version: 1.0\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend,
    }
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


# Runs the cells of a notebook in the same process, with one parameter.
_PAPERMILL = """
if __name__ == "__main__":
    import contextlib, io, json, sys
    with open(sys.argv[1]) as file:
        notebook, names = json.load(file), {}
    for cell in notebook["cells"]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec("".join(cell["source"]), names)
        if "parameters" in cell["metadata"].get("tags", []) and "-p" in sys.argv:
            name, value = sys.argv[sys.argv.index("-p") + 1 :][:2]
            names[name] = int(value)
        print(out.getvalue(), end="")
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": out.getvalue()}]
    with open(sys.argv[2], "w") as file:
        json.dump(notebook, file)
"""


def wheel(
    folder: Path,
    name: str,
    version: str,
    requires: Sequence[str] = (),
    *,
    tag: str = "py3-none-any",
    script: str | None = None,
    size: int = 0,
    code: str = "",
) -> Path:
    """A wheel of one module that knows its `version`.

    Args:
        requires: what it depends on.
        script: name of a program of its that prints its version.
        size: further bytes that it holds.
        code: further lines of the module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{name}.py": f"version = {version!r}\ndef main():\n    print({name!r}, version)\n{code}",
        **({f"{info}/entry_points.txt": f"[console_scripts]\n{script} = {name}:main\n"} if script else {}),
        **({f"{name}.dat": "\0" * size} if size else {}),
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


def papermill(folder: Path) -> Path:
    """What stands for papermill, which is 55 packages, and for its kernel."""
    wheel(folder, "ipykernel", "7.0")
    return wheel(folder, "papermill", "2.7", code=_PAPERMILL)
