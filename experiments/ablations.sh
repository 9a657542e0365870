#!/usr/bin/env bash
# Runs all ablations, 12 sweeps of 41 cells, and copies what the tables are made of.
# It can be stopped and started again: finished cells are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
for name in recipe erasures split sizes train_images networks dilation \
  decoder_dilation width depth kernel channels; do
  python experiments/sweep.py --flagfile=experiments/flags/ablation_$name.flags
  folder=experiments/results/ablations/$name
  mkdir -p "$folder"
  cp "runs/ablation_$name"/{sweep.json,table.jsonl} "$folder"
done
