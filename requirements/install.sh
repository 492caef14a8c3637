#!/bin/sh
# Installs muxrec for development into an environment. usage: install.sh PYTHON cpu|gpu
set -eu
python=$1
device=$2
root=$(cd "$(dirname "$0")/.." && pwd)
extras=train,jobs,serving,test,lint
torch=2.13.0
# The Triton of torch 2.11, which GPU machines still have: the kernels are compiled under it too.
older_triton=3.6.0

pip() {
    "$python" -m pip --disable-pip-version-check "$@"
}

case $device-$(uname -s) in
gpu-Linux)
    pip install -c "$root/requirements/constraints.txt" -e "$root[$extras,gpu]"
    ;;
cpu-Linux)
    # The ordinary Linux wheel of torch is the CUDA build with 15 NVIDIA packages: it works here too, at
    # 3 GB more. The CPU build comes from what pip is configured with, else from TORCH_CPU_INDEX, the
    # address of PyTorch's index of CPU wheels; it must not stand as an extra index, or pip would ask it
    # for every package.
    pip install --quiet --no-deps "torch==$torch+cpu" 2>/dev/null ||
        { test -n "${TORCH_CPU_INDEX:-}" &&
            pip install --quiet --no-deps "torch==$torch+cpu" --index-url "$TORCH_CPU_INDEX"; } ||
        echo "setup: no CPU build of torch $torch found, taking the ordinary one (set TORCH_CPU_INDEX)" >&2
    pip install -c "$root/requirements/constraints.txt" \
        "$root/requirements/fbgemm-gpu-shim" -e "$root[$extras,cpu]"
    ;;
cpu-Darwin)
    # No torchrec, triton and fbgemm wheels here: the markers in pyproject.toml leave them out.
    pip install -c "$root/requirements/constraints.txt" -e "$root[$extras,cpu]"
    ;;
*)
    echo "no recipe for $device on $(uname -s): use DEVICE=cpu, or DEVICE=gpu on Linux" >&2
    exit 1
    ;;
esac

# Beside the environment's packages and not among them: only the kernels' gate looks there.
if [ "$(uname -s)" = Linux ]; then
    side=$("$python" -c 'import sys; print(sys.prefix)')/triton-$older_triton
    test -d "$side" || pip install --quiet --no-deps --target "$side" "triton==$older_triton" ||
        echo "setup: no triton $older_triton found, its gate will be skipped" >&2
fi
