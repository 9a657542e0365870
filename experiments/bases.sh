#!/usr/bin/env bash
# Trains the base models of the codes on deep networks and keeps them in experiments/bases.
# Finished ones are not trained again, an interrupted training goes on. Hours on 2 cores.
# Arguments: the names of some of them, else all; Imagenette's folder in IMAGENETTE.
set -euo pipefail
root="$(dirname "$0")/.."
# Relative to the repository, as results keep it.
relative='import os, sys; print(os.path.relpath(*sys.argv[1:]))'
[ -z "${IMAGENETTE:-}" ] || IMAGENETTE=$(python -c "$relative" "$IMAGENETTE" "$root")
cd "$root"
all="cifar10_vgg16_first cifar10_vgg16 cifar10_resnet18"
all+=" cifar10_mobilenet imagenette_vgg16"
for name in ${*:-$all}; do
  flags=experiments/flags/base_$name.flags
  [ -e "$flags" ] || { echo "error: $name: one of $all accepted" >&2; exit 2; }
  kept=experiments/bases/$name
  [[ $name != *_first ]] || kept=runs/kept/$name
  [ -e "$kept/base.json" ] && continue
  images=()
  [ "$name" = imagenette_vgg16 ] &&
    images=("--data_dir=${IMAGENETTE:?the folder of Imagenette, with train/ and val/}")
  python experiments/run.py --flagfile="$flags" ${images[@]+"${images[@]}"}
  python experiments/keep_base.py --workdir="runs/base_$name" --base_dir="$kept" \
    ${images[@]+"${images[@]}"}
done
