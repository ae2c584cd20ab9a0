"""Run folder, callbacks, fit."""
