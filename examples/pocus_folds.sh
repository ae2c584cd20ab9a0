#!/usr/bin/env bash
# Lung ultrasound: regular or pneumonia, and five findings at once; five folds by patient each. See README.md here.
set -euo pipefail
data=${1:-../shared/data/pocus} out=${2:-runs}
here=$(dirname "$0")
mkdir -p "$out"
cinefeed scan "$data" --labels "$data/labels.csv" --out "$out/pocus.parquet"
for name in pocus_folds pocus_findings; do
    cinefeed train "$out/pocus.parquet" --config "$here/$name.toml" --folds 5 --out "$out/$name" --overwrite
done
