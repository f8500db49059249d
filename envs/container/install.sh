#!/bin/sh
# Install pais-bench and an environment into an image, exactly as locked: sh envs/container/install.sh ENVIRONMENT [BIN]
# Run by Dockerfile and apptainer.def, from the project's folder. BIN (default: /usr/local/bin) gets two commands:
# pais-bench, and backend-python, the Python that trains.
set -eu
environment=$1
bin=${2:-/usr/local/bin}
export PIP_NO_CACHE_DIR=1 UV_CACHE_DIR="${UV_CACHE_DIR:-/tmp/uv-cache}"

packages=
command -v git >/dev/null || packages="git"
command -v g++ >/dev/null || packages="$packages g++"
python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3 python3-dev python3-venv"
if [ -n "$packages" ]; then
    apt-get update
    # shellcheck disable=SC2086  # a list
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates $packages
    rm -rf /var/lib/apt/lists/*
fi

# An image is built where no GPU is: operators of source builds are for the GPUs that are named.
if command -v nvcc >/dev/null; then
    export FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-8.0 8.6 9.0+PTX}"
fi

workflow=$(python3 envs/build.py workflow)
backend=$(python3 envs/build.py "$environment")
mkdir -p "$bin"
for command in "pais-bench $workflow -m pais_bench" "backend-python $backend"; do
    printf '#!/bin/sh\nexec %s/%s "$@"\n' "$PWD" "${command#* }" >"$bin/${command%% *}"
    chmod 755 "$bin/${command%% *}"
done
rm -rf /tmp/uv-cache
