"""The loop that is timed from outside."""

import numpy as np

from branchynet.exports import loop


def test_each_image_by_itself_after_a_warm_up_through_every_exit(
    folders, pixels, tmp_path, monkeypatch, capsys
):
    loaded = []

    def load(folder):
        exported = loop_load(folder)
        run = exported.run_once
        monkeypatch.setattr(
            exported, "run_once", lambda x: loaded.append((len(x), exported.thresholds)) or run(x)
        )
        return exported

    loop_load = loop.load_export
    monkeypatch.setattr(loop, "load_export", load)
    np.save(tmp_path / "x.npy", pixels[:4])
    loop.main(str(folders["segments"]), str(tmp_path / "x.npy"), "2", "0.5,0.25")
    assert float(capsys.readouterr().out) > 0
    warm = 3 * loop.WARM_UP
    assert {size for size, _ in loaded} == {1}
    assert len({thresholds for _, thresholds in loaded[:warm]}) == 3
    assert [thresholds for _, thresholds in loaded[warm:]] == [(0.5, 0.25)] * 8
    loaded.clear()
    loop.main(str(folders["segments"]), str(tmp_path / "x.npy"), "0", "0.5,0.25")
    assert len(loaded) == warm and float(capsys.readouterr().out) >= 0
