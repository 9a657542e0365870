#!/usr/bin/env bash
# Searches how to train each code of LeNet-5's frontier, equally for all, and which code is
# the default, and copies what the tables are made of. It can be stopped and started again:
# finished cells are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 0 ] || { echo "error: $*: no arguments accepted" >&2; exit 2; }
for name in default default_k2_r1 no_parity_default cheap no_parity_cheap rivals \
  no_parity paper local ours conv conv_k2_r1; do
  python experiments/sweep.py --flagfile=experiments/flags/search_lenet5_$name.flags
  folder=experiments/results/searches/$name
  mkdir -p "$folder"
  cp "runs/search_lenet5_$name"/{sweep.json,table.jsonl} "$folder"
done
