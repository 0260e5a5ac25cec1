"""Initial weights, by name."""

from torch import nn

from branchynet.errors import check_choice

INITS = ("default", "he", "original")


def init_weights(module: nn.Module, init: str) -> None:
    """Draw new weights for every convolution and linear layer inside `module`.

    Args:
        module: changed in place.
        init: `default`, PyTorch's own: nothing is drawn; `he`: normal with standard deviation √(2/fan_in) (He
            et al., 2015, equation 10); `original`, as the paper's authors released it: normal with standard
            deviation 1/√fan_in. Both have biases of 0.

    Raises:
        ArgumentError: `init` is none of them.
    """
    check_choice("init", init, INITS)
    if init == "default":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # PyTorch's gain for a linear function is 1, for ReLU √2.
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if init == "he" else "linear")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
