#!/usr/bin/env bash
# Searches how to train each code of LeNet-5's frontier, equally for all, and which code is
# the default; or runs the searches that are named (also those of $images and $deep below).
# It copies what the tables are made of, and can be stopped and started again: finished
# cells are skipped. Imagenette's folder in IMAGENETTE.
set -euo pipefail
cd "$(dirname "$0")/.."
lenet5="default default_k2_r1 default_beyond no_parity_default cheap no_parity_cheap rivals
  no_parity paper local ours conv conv_k2_r1"
images="images_unet"
deep="deep_vgg16 deep_recipe deep_resnet18 deep_mobilenet deep_tail deep_halo deep_rivals
  deep_local deep_resnet18_parm deep_fashion_vgg16 deep_fashion_resnet18"
for name in "$@"; do
  [[ " $(echo $lenet5 $images $deep) " = *" $name "* ]] ||
    { echo "error: $name: some of" $lenet5 $images $deep "accepted" >&2; exit 2; }
done
for name in ${*:-$lenet5}; do
  flags=search_lenet5_$name more=()
  [[ $name != deep_* && $name != images_* ]] || flags=search_$name
  [ "$name" != deep_halo ] ||
    more=("--data_dir=${IMAGENETTE:?the folder of Imagenette, with train/ and val/}")
  python experiments/sweep.py --flagfile="experiments/flags/$flags.flags" \
    ${more[@]+"${more[@]}"}
  folder=experiments/results/searches/$name
  mkdir -p "$folder"
  cp "runs/$flags"/{sweep.json,table.jsonl} "$folder"
done
