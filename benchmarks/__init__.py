"""Speed, measured side by side with peers. `make bench` runs what needs no peer beyond the installed ones."""
