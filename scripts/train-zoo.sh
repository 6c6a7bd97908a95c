#!/bin/bash
# Trains the models of the zoo side by side on one GPU, each for as long: scripts/train-zoo.sh DATA OUT MINUTES [NAME...]
#
# DATA holds the scenes that models/*/README.md name. Their cards are filled in by scripts/score_zoo.py afterwards.
# DEVICE=cpu trains on the CPU; COMPILE names networks whose kernels are fused before they learn.
set -eu -o pipefail
data=$1 out=$2 minutes=$3
shift 3
names=("$@")
mkdir -p "$out"

validation=()
for scene in 06 12 24 27 35 38; do validation+=(--validate "$data/l7/$scene"); done

# manifest FILE SCENE... writes a manifest; a scene that is named n times has n times the patches
manifest() {
  echo name,pan,ms >"$1"
  for scene in "${@:2}"; do
    echo "$(basename "$scene"),$scene/pan.tif,$scene/ms.tif" >>"$1"
  done
}
landsat7=()
for scene in "$data"/l7/*; do
  case $(basename "$scene") in 06 | 12 | 24 | 27 | 35 | 38) ;; *) landsat7+=("$scene") ;; esac
done
manifest "$out/ms6-x2.csv" "${landsat7[@]}" "$data/l8_plain_a"
manifest "$out/rgb-x2.csv" "${landsat7[@]}" "$data"/l8_{plain_a,madrid,pamplona_w}
# ratio 4 is for sharper cameras: the little that there is of one counts more
sharper=("$data"/l8_plain_a "$data"/l8_plain_a)
for ((i = 0; i < 20; i++)); do sharper+=("$data/wv2_rotterdam_1"); done
manifest "$out/bgrn-x4.csv" "${landsat7[@]}" "${sharper[@]}"
cp "$out/ms6-x2.csv" "$out/x2.csv"
cp "$out/bgrn-x4.csv" "$out/x4.csv"

bands() {
  case $1 in
    ms6-x2) echo blue,green,red,nir,swir1,swir2 ;;
    rgb-x2) echo red,green,blue ;;
    bgrn-x4) echo blue,green,red,nir ;;
    *) echo any ;;
  esac
}

# train NETWORK SET OPTION... in the background
train() {
  local network=$1 set=$2 name=$1.$2 options=("${@:3}")
  if ((${#names[@]})) && [[ " ${names[*]} " != *" $name "* ]]; then return; fi
  if [[ " ${COMPILE:-} " == *" $network "* ]]; then options+=(--compile); fi
  python3 -m pansharpen_cli train --manifest "$out/$set.csv" "${validation[@]}" -o "$out/$name" \
    --network "$network" --bands "$(bands "$set")" --ratio "${set: -1}" --consistent "${options[@]}" \
    --minutes "$minutes" --batch 16 --validate-every 4000 --no-baselines --device "${DEVICE:-cuda}" --threads 1 \
    --licence Apache-2.0 --quiet -v >"$out/$name.log" 2>&1 &
}

train adknet-per-band x4 -O channels=32 -O layers=5 -O modulated=true
train adknet-per-band x2 -O channels=32 -O layers=5 -O modulated=true
train premix-b-per-band x4 -O channels=48 -O layers=3 -O modulated=true
train premix-b-per-band x2 -O modulated=true
for set in x4 x2; do train dmanet-per-band "$set" -O modulated=true -O transition=0.5 -O 'widths=[16,32,64]'; done
for set in bgrn-x4 ms6-x2 rgb-x2; do
  train dmanet "$set" -O transition=1
  for network in premix-h adknet premix-b; do train "$network" "$set"; done
done
failed=0
for job in $(jobs -p); do wait "$job" || failed=$((failed + 1)); done
grep -h . "$out"/*.log || true
exit $((failed > 0))
