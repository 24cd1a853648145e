#!/bin/sh
# What networks promise, on a machine with a GPU and no network. Its Python has torch, safetensors,
# scikit-learn and pytest; what it lacks comes as wheels in .device-wheels, which Git ignores:
#
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 \
#       --implementation cp --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
#       -d .device-wheels annotated-types attrs jsonschema jsonschema-specifications polars \
#       polars-runtime-32 pydantic pydantic-core referencing rpds-py typing-inspection
#
# `tests/gpu.sh keras` runs what models of Keras promise, and the contract of both. It needs besides:
# absl-py h5py keras markdown-it-py mdurl ml-dtypes namex optree packaging prettytable pygments rich
# skops wcwidth
set -eu
cd "$(dirname "$0")/.."
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$site" .device-wheels/*.whl
export PYTHONPATH="$site:$PWD/runtime/src" PYTHONDONTWRITEBYTECODE=1
python3 -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())'
cd tests/networks
case ${1:-} in
keras) set -- keras_promises.py contract.py ;;
*) set -- promises.py ;;
esac
exec python3 -m pytest "$@" -v --noconftest -c /dev/null --rootdir . -p no:cacheprovider \
    --durations 10
