#!/usr/bin/env bash
# Codes and their rivals on a deep network, with 3, 5 and 6 devices, and copies what the tables
# are made of. Finished runs are not run again, an interrupted one goes on. Hours on 2 cores;
# experiments/bases.sh makes the networks, but those for Fashion-MNIST, which the first code's
# run trains; these are small, and compared with no parity alone (VGG-16 with exact codes of
# every convolution, too). Pairs that mix all values of the pieces (mlp, conv and local, of a
# width that can be trained) are run on VGG-16 alone, and codes of groups of images (parm,
# approxifer) on ResNet-18; smaller is a network for each of five seeds.
# Arguments: a network, and some codes and sizes (resnet18 ours no_parity k2_r1), else all;
# Imagenette's folder in IMAGENETTE.
set -euo pipefail
root="$(dirname "$0")/.."
# Relative to the repository, as results keep it.
relative='import os, sys; print(os.path.relpath(*sys.argv[1:]))'
[ -z "${IMAGENETTE:-}" ] || IMAGENETTE=$(python -c "$relative" "$IMAGENETTE" "$root")
cd "$root"
all="ours no_parity zero_fill untrained layers smaller half narrow"
sizes="k2_r1 k4_r1 k4_r2"
fashion="fashion_lenet5 fashion_vgg16 fashion_vgg16_all fashion_resnet18 fashion_resnet18_all"
fashion+=" fashion_mobilenet"
nets="vgg16 resnet18 mobilenet imagenette $fashion"
net=${1:?the network, one of $nets}
[[ " $nets " = *" $net "* ]] || { echo "error: $net: one of $nets accepted" >&2; exit 2; }
flags=experiments/flags/deep_$net.flags
images=()
[ "$net" != imagenette ] ||
  images=("--data_dir=${IMAGENETTE:?the folder of Imagenette, with train/ and val/}")
[ "$net" != vgg16 ] || all+=" mlp conv local"
[ "$net" != resnet18 ] || all+=" parm approxifer"
[[ $net != fashion_* ]] || { all="ours no_parity" sizes="k2_r1 k4_r2"; }
[ "$net" != fashion_vgg16 ] || all+=" layers"
codes="" wanted=""
for name in "${@:2}"; do
  case " $all : $sizes " in
    *" $name "*:*) codes+=" $name" ;;
    *:*" $name "*) wanted+=" $name" ;;
    *) echo "error: $name: one of $all, $sizes accepted" >&2; exit 2 ;;
  esac
done
# How the pairs are trained: see search_deep_rivals and search_deep_local.
sums=(--parity_pieces=sums --returned=shares --beyond=0 --nonnegative=False)
codes=" ${codes:-$all} "
# A network for each seed, trained on for smaller images.
codes=${codes/ smaller / smaller smaller1 smaller2 smaller3 smaller4 }
for code in $codes; do
  for size in ${wanted:-$sizes}; do
    k=${size:1:1} r=${size:4} grid=2x2
    [ "$k" != 2 ] || grid=1x2
    case $code in parm | approxifer) # groups of images, of sizes of their own
      [ "$size" = k2_r1 ] || continue
      [ "$code" = parm ] || k=8 ;;
    esac
    name=${net}_${code}_k${k}_r$r
    workdir=runs/deep/$name
    [ -e "$workdir/results.json" ] && continue
    own=(--grid="$grid") own_flags=$flags
    # Losses that begin later, or are others in every stage, and more than r are measured of
    # our code alone and of few patterns, since they take as long again.
    case "$code $size $net" in
      *" fashion_"*) own+=(--other_stage_losses=) ;;
      "ours k2_r1 "*) own+=(--other_stage_losses=later,per_stage --tried=2) ;;
      "ours k4_r1 "*) ;;
      *) own+=(--other_stage_losses=) ;;
    esac
    # Narrower decoders, of one width in all stages: about a half and a quarter of ours.
    half=4 narrow=2
    case "$net $size" in
      "vgg16 "*) half=32 narrow=16 ;;
      "imagenette "*) half=16 narrow=8 ;;
      "resnet18 k4_r2") # wider ones would cost more than a twentieth of what is coded
        own+=(--decoder_width=10) half=5 narrow=3 ;;
      "resnet18 "*) half=10 narrow=5 ;;
    esac
    # 1.6 times as fast; its codes with k=4 were measured before that could be chosen.
    [ "$net $size" != "vgg16 k2_r1" ] || own+=(--products=bfloat16)
    # As frontier_lenet5_default_k2_r1.
    [ "$net $size" != "fashion_lenet5 k2_r1" ] || own+=(--learning_rate=4e-3 --tried=3)
    case $code in
      no_parity) own+=(--code=no_parity) ;;
      zero_fill) # behind zeros a second tail is all that learns
        own+=(--code=zero_fill --tail=tuned --distillation=0.3 --supervision=3 --seeds=3) ;;
      half) own+=(--decoder_width=$half) ;;
      narrow) own+=(--decoder_width=$narrow) ;;
      mlp) own+=("${sums[@]}" --encoder=mlp --decoder=mlp --encoder_width=64)
        own+=(--decoder_width=64 --learning_rate=1e-3) ;;
      conv) # one epoch takes longer than three of ours
        own+=("${sums[@]}" --encoder=conv --decoder=conv --encoder_width=8)
        own+=(--decoder_width=8 --learning_rate=3e-3 --epochs=1) ;;
      local) # likewise
        own+=("${sums[@]}" --encoder=local --decoder=local --encoder_width=8)
        own+=(--decoder_width=8 --learning_rate=3e-3 --epochs=1) ;;
      untrained) # without anything to train
        own+=(--code=berrut --baselines=zero_fill,mean_fill,spline,mds,replication)
        own+=(--beyond=0 --seeds=1) ;;
      smaller*) # no code: the whole network, trained on, on images as small as a piece
        side=$((k == 2 ? 28 : 24)) # of 32; a piece is 3/4 of a side, or 9/16 of both
        [ "$net" != imagenette ] || side=$((3 * side))
        seed=${code#smaller}
        own=(--grid="$grid" --image_size=$side --seed="${seed:-0}")
        own_flags=${flags%.flags}_smaller.flags ;;
      parm | approxifer) own=() own_flags=${flags%.flags}_$code.flags ;;
      layers) # every convolution by itself, which is exact
        own=() own_flags=${flags%.flags}_layers.flags ;;
    esac
    python experiments/run.py --flagfile="$own_flags" --k="$k" --r="$r" \
      ${own[@]+"${own[@]}"} ${images[@]+"${images[@]}"} --workdir="$workdir"
    mkdir -p experiments/results/deep
    cp "$workdir/results.json" "experiments/results/deep/$name.json"
  done
done
