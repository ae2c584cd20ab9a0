#!/usr/bin/env bash
# Mouth crops of spoken words: when does the word begin? 565 clips, labels made uniform. See README.md and lips.toml here.
set -euo pipefail
data=${1:-../shared/data/lips} out=${2:-runs}
mkdir -p "$out"
cinefeed scan "$data" --labels "$data/labels.csv" --out "$out/lips.parquet"
cinefeed train "$out/lips.parquet" --config "$(dirname "$0")/lips.toml" --out "$out/lips" --overwrite
