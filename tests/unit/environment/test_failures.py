"""What uv has said when it failed, word for word, by its kind."""

from __future__ import annotations

import pytest

from cloudtrain.environment.failures import kind, not_built, unresolved

SAID = {
    "hash_differs": "error: Failed to download `tqdm==4.70.1`\n  cause: Hash mismatch for `tqdm==4.70.1`\n",
    "disk_full": "error: Failed to install: x.whl (x==1)\n  cause: No space left on device (os error 28)",
    "no_compiler": "error: Failed to build `psutil==5.9.0`\n  cause: The build backend returned an error\n"
    "         error: [Errno 2] No such file or directory: 'nonexistent-cc'\n",
    "no_wheel": "error: Package `numpy` can't be installed because it doesn't have a source distribution or wheel for"
    " the current platform\n\nhint: You're using CPython 3.11 (`cp311`)",
    "index_unreachable": "error: Request failed after 3 retries in 10.3s\n  cause: Failed to fetch: http://x/simple/rich/\n"
    "  cause: tcp connect error\n  cause: Connection refused (os error 111)",
    "no_python": "error: No interpreter found for Python 3.9 in managed installations or search path",
}


@pytest.mark.parametrize("code", SAID)
def test_each_way_to_fail_has_its_code_and_uvs_words(code: str) -> None:
    assert kind(SAID[code]) == code
    error = not_built("Resolved 3 packages\n" + SAID[code])
    assert (error.code, error.exit_code, error.consequence) == (code, 6, "nothing has trained")
    assert error.hint and SAID[code].strip().splitlines()[-1].strip() in str(error.detail)


def test_what_docker_cannot_do_has_the_code_that_is_told_unless_the_disk_is_full() -> None:
    said = "E: Failed to fetch http://x\nError response from daemon: Hash mismatch"
    assert not_built(said, "image_not_built").code == "image_not_built"
    assert (
        not_built("failed to register layer: write /usr: no space left on device", "image_not_pulled").code
        == "disk_full"
    )
    assert not_built(said, "something").code == "hash_differs"


def test_another_way_has_the_words_at_least() -> None:
    error = not_built("error: something new\x1b[2J")
    assert error.code == "environment" and error.detail == "error: something new"
    assert kind("Installed 3 packages") is None


def test_a_refusal_before_the_launch_is_one_of_what_was_asked_for() -> None:
    words = "error: No solution found\n  cause: Because torch==99 is not there, your requirements are unsatisfiable."
    error = unresolved("requirements.txt", words)
    assert (error.code, error.exit_code) == ("requirements", 2) and "torch==99" in str(error.detail)
    assert unresolved("x", "a" * 9000).detail == "a" * 1500
