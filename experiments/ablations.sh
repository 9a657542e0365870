#!/usr/bin/env bash
# Runs the ablations on LeNet-5, 12 sweeps of 41 cells, or the ones that are named (also deep,
# of the codes on VGG-16), and copies what the tables are made of. It can be stopped and started
# again: finished cells are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
lenet5="recipe erasures split sizes train_images networks dilation
  decoder_dilation width depth kernel channels"
for name in ${*:-$lenet5}; do
  [ -e "experiments/flags/ablation_$name.flags" ] ||
    { echo "error: $name: deep, or some of" $lenet5 "accepted" >&2; exit 2; }
  python experiments/sweep.py --flagfile=experiments/flags/ablation_$name.flags
  folder=experiments/results/ablations/$name
  mkdir -p "$folder"
  cp "runs/ablation_$name"/{sweep.json,table.jsonl} "$folder"
done
