#!/usr/bin/env bash
# Lung ultrasound: regular or pneumonia, by heads on ImageNet features; five folds by patient. See README.md here.
set -euo pipefail
data=${1:-../shared/data/pocus} out=${2:-runs}
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"  # of efficientnet_lite0.py
mkdir -p "$out"
cinefeed scan "$data" --labels "$data/labels.csv" --out "$out/pocus.parquet"
cinefeed encode "$out/pocus.parquet" --encoder python:efficientnet_lite0:encoder --frame 160x160x3 --out "$out/pocus_features"
for name in pocus_linear pocus_attentive; do
    cinefeed train "$out/pocus_features/features.parquet" --config "$here/$name.toml" --folds 5 --out "$out/$name" --overwrite
done
