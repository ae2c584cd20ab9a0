#!/usr/bin/env bash
# Mouth crops of spoken words: which of 30 is it? Five folds, out-of-fold scores. See README.md and lips_words.toml here.
set -euo pipefail
data=${1:-../shared/data/lips} out=${2:-runs}
mkdir -p "$out"
cinefeed scan "$data" --labels "$data/labels.csv" --out "$out/lips.parquet"
cinefeed train "$out/lips.parquet" --config "$(dirname "$0")/lips_words.toml" --folds 5 --out "$out/lips_words" --overwrite
