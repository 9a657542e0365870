#!/usr/bin/env bash
# Every code on LeNet-5 with 3, 5 and 6 devices, and then their comparison. Finished runs
# are not run again. Arguments are flags of every run: --epochs=24 trains all codes for
# longer. Hours on 2 cores, more than one of them for the Conv pair.
set -euo pipefail
cd "$(dirname "$0")/.."
for sizes in "4 2" "2 1" "4 1"; do
  read -r k r <<<"$sizes"
  for codes in layers copies rivals cheap no_parity_cheap no_parity paper local ours \
    default conv; do
    workdir=runs/frontier_lenet5/${codes}_k${k}_r${r}
    [ -e "$workdir/results.json" ] && continue
    split="--k=$k --r=$r" flags=$codes
    case "$codes $sizes" in
      copies*) split="--k=2 --r=$((k + r - 2))" ;;
      "ours 4 2") flags=ours_k4_r2 ;;
      "conv 2 1") flags=conv_k2_r1 ;;
      "default 2 1") flags=default_k2_r1 ;;
    esac
    python experiments/run.py --flagfile="experiments/flags/frontier_lenet5_$flags.flags" \
      $split --tried=$((k + r)) "$@" --workdir="$workdir"
  done
done
python experiments/frontier.py --output=runs/frontier_lenet5 \
  runs/frontier_lenet5/*/results.json
