"""Table I of the paper, to the letter, and which of our experiments repeat which of its rows."""

import pytest

from branchynet.commands.app import conf_folder
from branchynet.reporting.paper import paper_row

# (network, accuracy %, gain on the CPU, on the GPU, thresholds, exit rates %), as printed; baselines first.
TABLE = {
    "b_lenet_mnist": ("LeNet", 99.20, "B-LeNet", 99.25, 5.4, 4.7, "0.025", "94.3, 5.6"),
    "b_alexnet_cifar10": ("AlexNet", 78.38, "B-AlexNet", 79.19, 1.5, 2.4, "0.0001, 0.05", "65.6, 25.2, 9.2"),
    "b_resnet110_cifar10": ("ResNet", 80.70, "B-ResNet", 79.17, 1.9, 1.9, "0.3, 0.2", "41.5, 13.8, 44.7"),
}


@pytest.mark.parametrize("experiment", TABLE)
def test_the_rows_are_the_papers(experiment):
    row = paper_row(experiment)
    assert TABLE[experiment] == (
        row.trunk,
        row.baseline_accuracy,
        row.branchy,
        row.accuracy,
        row.gain_cpu,
        row.gain_gpu,
        row.thresholds,
        row.exit_rates,
    )


def test_variants_of_an_experiment_stand_beside_the_same_rows():
    assert (
        paper_row("b_lenet_mnist_paper") == paper_row("b_lenet_efficient_mnist") == paper_row("b_lenet_mnist")
    )
    for other in ("b_lenet_digits", "b_lenet", "my_b_lenet_mnist", ""):
        assert paper_row(other) is None


def test_every_experiment_on_the_papers_data_has_a_row():
    names = [path.stem for path in (conf_folder() / "experiment").glob("*.yaml")]
    repeats = [name for name in names if name.endswith(("mnist", "cifar10", "_paper", "_short"))]
    assert len(repeats) >= 6
    ours = ["b_resnet20_cifar10"]  # a trunk that the paper does not have
    assert [name for name in repeats if not paper_row(name)] == ours
