"""A disk that takes no more, here a limit on the size of files."""

import pytest

from tests.run.tiny import TRANSFER, WORDS, start

# Blocks of 512 or 1024 bytes, as the shell has it; less than the weights take in both.
LIMITED = ("sh", "-c", 'ulimit -f 1000 && exec "$@"', "sh")


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True], ids=["checkpoint", "weights"])
def test_full_disk_is_a_message_and_keeps_what_is_stored(finished, tmp_path, given):
    source = finished / TRANSFER / "seed0/source_only"
    words = [f"checkpoint={source}"] if given else []
    process = start(tmp_path, "quickstart", *WORDS, *words, before=LIMITED)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot be written" in errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    (folder,) = tmp_path.glob("quickstart/*")
    assert (folder / "recipe.yaml").exists()
    assert not list(folder.rglob("model.safetensors"))
