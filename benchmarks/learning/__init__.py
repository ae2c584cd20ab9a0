"""Trainings on synthetic data with known answers, with and without the necessary inputs; see __main__.py."""
