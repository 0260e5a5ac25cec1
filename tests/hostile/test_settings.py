"""Settings that cannot be: one line before any work. A line of CASES is a case: overrides, a word of the answer."""

import child
import pytest

CASES = """
epochs=5 | epochs
epochs=null | epochs
epochs.joint=-1 | epochs.joint
weights.first=abc | weights.first
weights.values=[1] | weights.values
weights.values=[nan,1] | weights
engine.seconds=abc | engine.seconds
engine.seconds=null | engine.seconds
engine.compare=5 | engine.compare
engine.compare=[nosuch] | engine.compare
engine.name=[torch] | engine.name
engine.threads=100000 | engine.threads
engine.threads=0 | engine.threads
sweep.rule=null | sweep.rule
+sweep.nosuch=1 | sweep.nosuch
sweep.thresholds=[nan] | thresholds
sweep.max_vectors=0 | max_vectors
+trainer.max_epochs=3 | max_epochs
+trainer.default_root_dir=/x | default_root_dir
+trainer.nosuch=1 | nosuch
trainer.devices=1000 | devices
+trainer.profiler=nosuch | profiler
optimizer._target_=os.system | optimizer
optimizer._target_=torch.optim.Nosuch | Nosuch
optimizer.lr=abc | optimizer
optimizer.lr=-1 | learning rate
model.trunk._target_=branchynet.networks.nosuch.x | nosuch
model.trunk._target_=5 | _target_
model.trunk.nosuch=1 | nosuch
+model.trunk.nosuch=1 | nosuch
model.exits=5 | model.exits
model.exits.0.after=nosuch | nosuch
model.exits.0.convs=[0] | convs
model.exits.0.convs=[1000000000] | GiB
+nosuch.key=1 | nosuch
+epochs.nosuch=3 | epochs.nosuch
model.name=null | model.name
name=null | name
name= | name
seed=-1 | seed
seed=abc | seed
init=nosuch | init
freeze=heads | freeze
label_smoothing=2 | label_smoothing
ema=2 | ema
data.batch_size=0 | batch_size
data.num_workers=100000 | num_workers
data.validation_size=100000 | validation_size
data.path=nosuch.npz | data.path
data=arrays data.path=nosuch.npz | nosuch.npz
data=arrays data.path=/dev/zero | /dev/zero
+callbacks.es._target_=os.system | callbacks.es
+callbacks.es._target_=lightning.pytorch.callbacks.EarlyStopping | monitor
objective=distilled objective.teacher=nosuch | no such folder or file
objective=distilled objective.teacher=/ | is no run
objective=distilled objective.teacher=/dev/zero objective.teacher_model=b_lenet | /dev/zero
objective=distilled objective.teacher=/dev/zero objective.teacher_model=nosuch | objective.teacher_model=nosuch
objective=distilled objective.teacher_model={} | teacher_model
experiment=nosuch | nosuch
model=nosuch | nosuch
optimizer=null | optimizer
schedule=null | schedule
model=null | model
data=null | data
criterion=null | criterion
engine=null | engine
trainer=null | trainer
schedule.name=nosuch | schedule
criterion._target_=branchynet.exits.criteria.Nosuch | Nosuch
criterion._target_=builtins.exec | exec
compile=maybe | compile
trainer.precision=nosuch | precision
trainer.accelerator=nosuch | accelerator
seed=${nosuch} | nosuch
seed=${ | seed
resume= | resume
"""

TINY = (
    *("experiment=b_lenet_digits", "trainer=cpu", "epochs.baseline=1", "epochs.joint=1", "schedule=none"),
    *("engine=torch", "engine.compare=[]", "engine.seconds=0.01", "logger=none"),
)


def cases(table):
    """Of every line the words before and after the bar."""
    rows = [line.rpartition("|") for line in table.strip().splitlines()]
    return [pytest.param(before.split(), after.strip(), id=before.strip()) for before, _, after in rows]


@pytest.mark.parametrize(("overrides", "word"), cases(CASES))
def test_refused_in_a_line_before_any_work(overrides, word, tmp_path):
    done = child.call(["train", *TINY, "hydra.run.dir=run", *overrides], tmp_path)
    done.refused(word)
    assert not list(tmp_path.glob("run/checkpoints/*"))
