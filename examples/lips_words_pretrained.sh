#!/usr/bin/env bash
# Mouth crops of spoken words: which of 30 is it? A head on ImageNet features; five folds. See README.md here.
set -euo pipefail
data=${1:-../shared/data/lips} out=${2:-runs}
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"  # of efficientnet_lite0.py
mkdir -p "$out"
cinefeed scan "$data" --labels "$data/labels.csv" --out "$out/lips.parquet"
cinefeed encode "$out/lips.parquet" --encoder python:efficientnet_lite0:encoder --frame 112x112x3 --dtype float16 \
    --augmented 1 --transforms "$here/lips_augmentation.toml" --out "$out/lips_features"
cinefeed train "$out/lips_features/features.parquet" --config "$here/lips_words_ordered.toml" --folds 5 \
    --out "$out/lips_words_ordered" --overwrite
