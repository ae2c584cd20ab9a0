"""What every other package may use: errors, random numbers, files, locks, text."""
