#!/bin/sh
# Make the benchmark environment: the product and the two peers it is measured against, in a venv of their own so that
# the product's stays clean.    Testing/benchmarks/setup.sh [FOLDER]    (default: bench-venv beside this checkout)
# PYTHON chooses the interpreter; TORCH_INDEX another package index for torch, such as
# https://download.pytorch.org/whl/cpu, which spares a download of gigabytes of CUDA libraries.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
venv=${1:-$root/../bench-venv}
python=${PYTHON:-python3}

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# The peers' versions are those of RESULTS.md; everything else is the newest that goes with them.
install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c "$root/Testing/benchmarks/constraints.txt" \
  torch nnunetv2 monai openvino numpy scipy SimpleITK safetensors fastjsonschema pillow pytest pytest-timeout
install --no-deps -e "$root"
echo "benchmark environment: $venv"
