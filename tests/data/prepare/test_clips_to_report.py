"""A folder of clips and a list of them, to the report of a study: what docs/data.md says, at toy size."""

import re
from pathlib import Path

import pytest
from prepare_files import directly, write_manifest, write_mp4

from mmr_jax import config as configs
from mmr_jax.data.prepare import manifest
from mmr_jax.data.prepare.run import Options, prepare
from mmr_jax.data.prepare.settings import Settings
from mmr_jax.study import Study
from mmr_jax.study_report import report

GUIDE = Path(__file__).parents[3] / "docs/data.md"
SMALL = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 32, "scan_layers": False}
STEPS = {"steps": 2, "batch_size": 8, "checkpoint_every": 0}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kitchen")
    rows = ["media,split,text,labels"]
    for i in range(24):
        write_mp4(folder / f"{i:03d}.mp4", audio=i != 3, seed=i)
        rows.append(f"{i:03d}.mp4,{('train', 'train', 'test')[i % 3]},clip {i},{('boiling', 'chopping')[i % 2]}")
    write_manifest(folder / "clips.csv", [*rows, "lost.mp4,train,nobody,boiling"])
    listing = manifest.read(folder / "clips.csv")
    prepare(listing, folder, folder / "prepared", Settings(4, 32, 8000), options=Options(execute=directly))
    return folder / "prepared"


def config_of_the_guide() -> configs.ConfigDict:
    block = re.search(r"```python\n(.*?)```", GUIDE.read_text(), re.S)[1]
    namespace: dict = {}
    exec(block, namespace)
    return namespace["config"]


def test_from_clips_to_the_report(prepared, tmp_path):
    config = config_of_the_guide()
    config.data.folder = str(prepared)
    config.model.update(SMALL)
    config.model.projection.dim = 16
    config.modalities.audio.update(sample_rate=8000, samples=8000, frames=96, mels=16)
    config.modalities.video.update(frames=4, height=24, width=24, stored=32, patch_size=(4, 8, 8))
    config.pretrain.update(STEPS)
    config.probe.update(STEPS)
    config.study.update(methods=("linear_probe",), train_subsets=("audio",), export="", eval_batch_size=8)
    study = Study(config, tmp_path / "run")
    assert {s: len(x) for s, x in study.dataset.splits.items()} == dict(unlabelled=16, labelled=14, val=2, test=8)
    study.run()
    report(study, {})
    page = (tmp_path / "run/report/index.html").read_text()
    assert "boiling" in (prepared / "labels-labels-name.labels.txt").read_text() and "retrieval" in page.lower()
    rows = next(study.record(s)["scores"] for s in study.stages() if s.kind == "evaluate")
    assert {r["eval"]: r["n"] for r in rows}["audio"] == 8 and len(rows) == 7
