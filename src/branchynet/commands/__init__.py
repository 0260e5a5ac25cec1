"""The commands: `@hydra.main` shells over plain functions."""

# What `branchynet` knows, and what it says of each.
COMMANDS = {
    "train": "train the baseline and all exits, sweep the thresholds, report the operating point",
    "search": "search places and shapes of exits for the best gain, on Optuna: a training each trial",
    "evaluate": "choose a finished run's operating point by other settings, without training",
    "report": "every run and evaluation below some folders in one table, as CSV, Markdown and figures",
    "export": "write a finished run's network as ONNX or torch.export models, and compare them with it",
    "stream": "a finished run on test images that become harder: thresholds fixed, held and adapted",
    "places": "where exits can hang on a trunk: shapes, MACs and parameters so far, what a head costs",
    "predict": "classify images with an export or a finished run: class, confidence, exit, cost",
}
