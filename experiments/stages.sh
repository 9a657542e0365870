#!/usr/bin/env bash
# Plans, verifies and times the stages of well-known networks: experiments/stages.py for
# each of them, with k=2 r=1 and k=4 r=2. What has a result is left as it is. Names as
# arguments choose some of them.
set -euo pipefail
cd "$(dirname "$0")/.."
results=experiments/results/stages

plan() { # name, model, image shape
  local name=$1 model=$2 shape=$3
  for sizes in "2 1 0.75 0.65" "4 2 0.85 0.4"; do
    read -r k r wanted device <<< "$sizes"
    local output=$results/${name}_k${k}_r${r}.json
    [[ -e $output ]] && continue
    python experiments/stages.py --model="$model" --image_shape="$shape" \
      --k="$k" --r="$r" --wanted="$wanted" --device="$device" \
      --output="$output"
  done
}

while read -r name model shape; do
  [[ $# -eq 0 || " $* " == *" $name "* ]] || continue
  plan "$name" "$model" "$shape" < /dev/null
done << 'NETWORKS'
vgg16 keras:VGG16 224x224x3
resnet50 keras:ResNet50 224x224x3
resnet50v2 keras:ResNet50V2 224x224x3
densenet121 keras:DenseNet121 224x224x3
mobilenetv2 keras:MobileNetV2 224x224x3
mobilenetv3 keras:MobileNetV3Large 224x224x3
efficientnetb0 keras:EfficientNetB0 224x224x3
xception keras:Xception 299x299x3
inceptionv3 keras:InceptionV3 299x299x3
convnexttiny keras:ConvNeXtTiny 224x224x3
nasnetmobile keras:NASNetMobile 224x224x3
unet networks.unet:shapes 256x256x3
nnx_resnet18 networks.nnx_resnet:shapes 224x224x3
equinox_resnet18 networks.equinox_resnet:shapes 224x224x3
NETWORKS
