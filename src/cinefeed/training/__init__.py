"""Training: run folder, callbacks, checkpoints, evaluation, cross-validation, feature encoding and export."""
