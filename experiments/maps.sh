#!/usr/bin/env bash
# Draws all maps of docs/when_coding_pays.md, and copies what its tables are made of. It
# can be stopped and started again: points that are there are not compared again.
# Arguments are names of maps; all of them without any. Half an hour on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
wanted=" $* "
for name in "$@"; do
  grep -q "^map $name " "experiments/maps.sh" ||
    { echo "error: $name given, a map that this script names accepted" >&2; exit 2; }
done
map() { # NAME, flags and runs of map.py
  local name=$1
  shift
  [ "$wanted" = "  " ] || [[ "$wanted" == *" $name "* ]] || return 0
  python experiments/map.py --output="runs/map/$name" "$@"
  mkdir -p experiments/results/map
  cp "runs/map/$name/map.json" "experiments/results/map/$name.json"
}
results=experiments/results
links="--x=bandwidth,1e5,1e9,9 --y=tail,0.03,3,9 --failure=0.001"
fast_links="--x=bandwidth,1e6,1e10,9 --y=tail,0.03,3,9 --failure=0.001"
clients="--x=client,0.02,20,9 --y=failure,1e-4,0.2,9 --tail=0.5"

# As trained, with the accuracies of their runs.
codes=("$results"/frontier/lenet5_{cheap,default,local,ours,paper,rivals}_k*.json)
map lenet5_bandwidth --speed=1e7 --failure=0.001 --x=bandwidth,1e4,1e7,9 \
  --y=tail,0.03,3,9 "${codes[@]}"
map lenet5_client --speed=1e7 --bandwidth=1e6 $clients "${codes[@]}"
map lenet5_link --speed=1e7 --bandwidth=1e6 --failure=0.001 --straggling=pareto \
  --x=link,1e-4,1,9 --y=tail,0.03,1,9 "${codes[@]}"
map vgg16_small_bandwidth --speed=1e8 $links $results/{cheap,networks}/*vgg16*.json
map vgg16_small_deep_bandwidth --speed=1e8 $links \
  $results/deep/fashion_vgg16_{{,all_}ours,layers}_k*.json
half=($results/deep/vgg16_{ours,layers}_k*.json)
map vgg16_half_bandwidth --speed=1e10 $links "${half[@]}"
map vgg16_half_request --speed=1e10 $links --noeach_round "${half[@]}"
map photographs_bandwidth --speed=1e10 $links $results/deep/imagenette_{ours,layers}_k*.json
map vgg16_small_trace --speed=6e10 --link=2e-5 --straggling=trace \
  --trace=experiments/traces/busy_cores.txt --x=bandwidth,1e7,1e10,9 \
  --y=failure,1e-4,0.2,9 $results/{cheap,networks}/*vgg16*.json
map resnet18_small_bandwidth --speed=1e8 $links $results/networks/*resnet18*.json
map resnet18_small_deep_bandwidth --speed=1e8 $links \
  $results/deep/fashion_resnet18_{,all_}ours_k*.json
map mobilenet_small_bandwidth --speed=1e8 $links $results/layers/mobilenet*.json

# By cost alone: a learned code is taken to lose 0.3 points in each coded stage.
given="--given_drop=0.3"
small="--image_shape=32x32x3 --speed=1e10 $links"
map vgg16_32_bandwidth --base_model=vgg16 $given $small
map resnet18_32_bandwidth --base_model=resnet18 $given $small
map mobilenet_32_bandwidth --base_model=mobilenet $given $small
map vgg16_bandwidth --base_model=vgg16 $given --speed=1e12 $fast_links
map vgg16_request --base_model=vgg16 $given --speed=1e12 $fast_links --noeach_round
map vgg16_speed --base_model=vgg16 $given --bandwidth=1e8 --failure=0.001 \
  --straggling=pareto --x=speed,1e10,1e14,9 --y=tail,0.03,1,9
map resnet50_bandwidth --base_model=resnet50 $given --speed=1e11 $fast_links
map resnet50_client --base_model=resnet50 $given --speed=1e11 --bandwidth=1e9 $clients
map mobilenet_v2_bandwidth --base_model=mobilenet_v2 $given --speed=1e11 $fast_links
