#!/usr/bin/env bash
# Codes and their rivals on a deep network, with 3, 5 and 6 devices. Finished runs are not run
# again, an interrupted one goes on. Hours on 2 cores; experiments/bases.sh makes the networks.
# Arguments: a network (vgg16, resnet18), and the names of some codes, else all.
set -euo pipefail
cd "$(dirname "$0")/.."
all="ours no_parity zero_fill intact untrained layers narrow"
net=${1:?the network: vgg16 or resnet18}
flags=experiments/flags/deep_$net.flags
[ -e "$flags" ] || { echo "error: $net: vgg16 or resnet18 accepted" >&2; exit 2; }
for code in ${*:2}; do
  [[ " $all " = *" $code "* ]] || { echo "error: $code: one of $all accepted" >&2; exit 2; }
done
for code in ${*:2} $([ $# -gt 1 ] || echo "$all"); do
  for sizes in "2 1 1x2" "4 1 2x2" "4 2 2x2"; do
    read -r k r grid <<<"$sizes"
    workdir=runs/deep/${net}_${code}_k${k}_r${r}
    [ -e "$workdir/results.json" ] && continue
    own=(--grid="$grid") own_flags=$flags
    case $code in
      no_parity | zero_fill) own+=(--code=$code) ;;
      intact) own+=(--tail=intact) ;;
      narrow) own+=(--decoder_width=32) ;;
      untrained) # without anything to train, and so without a second tail
        own+=(--code=berrut --baselines=spline,mds,replication,mean_fill)
        own+=(--tail=frozen --distillation=0 --ends=all --beyond=0 --seeds=1) ;;
      layers) # every convolution by itself, which is exact
        own=() own_flags=${flags%.flags}_layers.flags ;;
    esac
    python experiments/run.py --flagfile="$own_flags" --k="$k" --r="$r" \
      ${own[@]+"${own[@]}"} --workdir="$workdir"
  done
done
