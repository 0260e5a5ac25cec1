"""The average of the weights against a slow loop; what of it is validated, kept and resumed."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from branchynet.errors import UserError
from branchynet.training.averaging import Ema, check_decay, ema_update


def test_the_average_is_that_of_a_slow_loop_and_counters_are_copied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    averaged = AveragedModel(model, multi_avg_fn=ema_update(0.9), use_buffers=True)
    expected = None
    for _ in range(20):
        model(torch.randn(5, 3))
        with torch.no_grad():
            model[0].weight += torch.randn(2, 3)
        averaged.update_parameters(model)
        now = {name: value.clone() for name, value in model.state_dict().items()}
        expected = now if expected is None else {n: 0.9 * expected[n] + 0.1 * now[n] for n in now}
    state = averaged.module.state_dict()
    for name in ("0.weight", "0.bias", "1.running_mean", "1.running_var"):
        assert torch.allclose(state[name], expected[name], atol=1e-6), name
    assert state["1.num_batches_tracked"] == 20
    assert torch.equal(state["0.bias"], model[0].bias)  # never changed: not a bit is lost


@pytest.mark.parametrize("decay", [0, 1, -0.1, 1.5, True, "0.9x", None, float("nan")])
def test_a_decay_out_of_range_gets_one_line(decay):
    for refuse in (check_decay, Ema):
        with pytest.raises(UserError, match=f"^ema={decay}: it is the decay per step[^\\n]*$"):
            refuse(decay)
