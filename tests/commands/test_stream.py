"""`branchynet stream` asks for a run before anything is made."""

import pytest

from branchynet.commands.stream import main
from branchynet.errors import UserError


@pytest.mark.parametrize(
    ("words", "said"), [([], "run=<run folder> is missing"), (["run=nowhere"], "nowhere")]
)
def test_without_a_run_nothing_is_made(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["branchynet stream", *words])
    with pytest.raises(UserError, match=said):
        main()
    assert not list(tmp_path.iterdir())
