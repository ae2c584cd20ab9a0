"""Speed, measured side by side with peers. `make bench` runs all of it and writes docs/benchmarks.md."""
