"""Trainings on synthetic data with known answers, by networks with and without the necessary inputs; see __main__.py."""
