#!/usr/bin/env bash
# Cheap codes on VGG-16: decoders of low rank, and the baselines. Finished runs are not run
# again. Two hours on one core, a sixth of it for the base model.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 0 ] || { echo "error: $*: no arguments accepted" >&2; exit 2; }
runs=runs/frontier_vgg16
cheap() { # workdir and flags
  [ -e "$runs/$1/results.json" ] ||
    python experiments/run.py "${@:2}" --workdir="$runs/$1"
}
flags=experiments/flags/fashion_vgg16
cheap low_rank_k2_r1 --flagfile=${flags}_low_rank_k2_r1.flags --tried=2
cheap cheap_k2_r1 --flagfile=${flags}_cheap_k2_r1.flags --tried=2
cheap low_rank_k4_r2 --flagfile=${flags}_low_rank_k4_r2.flags
python experiments/frontier.py --output=$runs $runs/*/results.json
