"""One progress bar per stage, over its epochs."""

import sys

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm


class EpochProgress(Callback):
    """A bar over the stage's epochs, followed by the validation accuracy of every trained exit.

    Epochs and not steps: at thousands of images a millisecond a bar per step costs more than the step.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.bar = tqdm(
            total=trainer.max_epochs,
            initial=trainer.current_epoch,
            desc=f"{pl_module.stage:>8}",
            unit="epoch",
            file=sys.stdout,
            dynamic_ncols=True,
        )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bar is None:
            return
        prefix = f"{pl_module.stage}/val_accuracy_exit_"
        accuracies = {
            name.removeprefix(prefix): f"{100 * float(value):.2f} %"
            for name, value in trainer.callback_metrics.items()
            if name.startswith(prefix)
        }
        text = ", ".join(f"exit {n} {accuracy}" for n, accuracy in accuracies.items())
        self.bar.set_postfix_str(f"validation: {text}", refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
