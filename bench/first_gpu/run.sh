#!/bin/sh
# Installs carried wheels beside the packages of a GPU machine and measures everything there.
#
#   sh bench/first_gpu/run.sh WHEELS [arguments of bench.first_gpu]
#
# WHEELS is a folder that `make gpu-wheels` filled. Figures, table and logs go to the folder $OUT,
# or to first_gpu.out. PYTHON is the machine's Python with PyTorch.
set -eu

wheels=${1:?"usage: sh bench/first_gpu/run.sh WHEELS [arguments of bench.first_gpu]"}
shift
wheels=$(cd "$wheels" && pwd)
python=${PYTHON:-python3}
mkdir -p "${OUT:-first_gpu.out}"
out=$(cd "${OUT:-first_gpu.out}" && pwd)
cd "$(dirname "$0")/../.."
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT

if ! "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl; then
    echo "run.sh: the wheels in $wheels were not installed; steps that need them will fail" >&2
fi
# The project and its client come first, so that no package of the same name is imported.
PYTHONPATH="$PWD:$PWD/client:$site${PYTHONPATH:+:$PYTHONPATH}"
PYTHONUNBUFFERED=1
export PYTHONPATH PYTHONUNBUFFERED
mkfifo "$site/printed"
tee -a "$out/first_gpu.log" < "$site/printed" &
tee=$!
status=0
"$python" -m bench.first_gpu --out "$out" "$@" > "$site/printed" 2>&1 || status=$?
# A process that cannot be killed holds its output open.
(sleep 5 && kill "$tee") > /dev/null 2>&1 &
wait "$tee" || true
kill "$!" 2> /dev/null || true
exit "$status"
