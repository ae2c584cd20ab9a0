#!/usr/bin/env bash
# Lung ultrasound: regular or pneumonia? 63 videos, split by patient, balanced, grey 112 x 112, 16 frames. See README.md here.
set -euo pipefail
data=${1:-../shared/data/pocus} out=${2:-runs}
mkdir -p "$out"
cinefeed scan "$data" --labels "$data/labels.csv" --out "$out/pocus.parquet"
cinefeed train "$out/pocus.parquet" --target label --where label=regular,pneumonia --classes regular,pneumonia \
    --group patient_group --stratify label --val 0.2 --test 0.25 --balance \
    --frame 112x112x1 --frames 16 --stride 2 --rotate 25 --shift 15 \
    --epochs 60 --patience 60 --learning-rate 2e-3 --schedule cosine --batch-size 8 --seed 7 --out "$out/pocus" --overwrite
