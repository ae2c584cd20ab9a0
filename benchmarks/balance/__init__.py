"""Does balancing help? Small trainings with and without it, five seeds each; see __main__.py."""
