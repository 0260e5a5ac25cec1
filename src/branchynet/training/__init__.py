"""Joint training: the weighted loss over all exits, the LightningModule, the two stages."""
