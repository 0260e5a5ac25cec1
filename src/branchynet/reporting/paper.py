"""Table I of the paper, to stand beside our own numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """A pair of rows of Table I: accuracies and rates in %, gains in time on the CPU and the GPU."""

    trunk: str
    branchy: str
    baseline_accuracy: float
    accuracy: float
    gain_cpu: float
    gain_gpu: float
    thresholds: str
    exit_rates: str


# Teerapittayanon, McDanel and Kung, "BranchyNet: Fast Inference via Early Exiting from Deep Neural Networks",
# ICPR 2016, Table I; by the beginning of our experiments' names.
LENET = PaperRow("LeNet", "B-LeNet", 99.20, 99.25, 5.4, 4.7, "0.025", "94.3, 5.6")
PAPER = {
    "b_lenet_mnist": LENET,
    "b_lenet_efficient_mnist": LENET,
    "b_alexnet_cifar10": PaperRow(
        "AlexNet", "B-AlexNet", 78.38, 79.19, 1.5, 2.4, "0.0001, 0.05", "65.6, 25.2, 9.2"
    ),
    "b_resnet110_cifar10": PaperRow(
        "ResNet", "B-ResNet", 80.70, 79.17, 1.9, 1.9, "0.3, 0.2", "41.5, 13.8, 44.7"
    ),
}


def paper_row(experiment: str) -> PaperRow | None:
    """The rows that `experiment` repeats, or None."""
    return next((row for name, row in PAPER.items() if experiment.startswith(name)), None)
