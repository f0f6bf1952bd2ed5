#!/usr/bin/env bash
# Installs GPU driver, Docker and NVIDIA's container toolkit, as far as they are missing. Runs as root
# at each boot of the VM (Ubuntu 24.04) and writes /run/evascore-machine-ready at its end. It contains
# no secret, because all who may read the VM's metadata can read it.

set -euo pipefail

# torch's wheels contain CUDA 13, which needs a driver of at least this branch.
LOWEST_DRIVER=580
KEYRING=/usr/share/keyrings/nvidia-container-toolkit.gpg
TOOLKIT=https://nvidia.github.io/libnvidia-container

say() { printf 'evascore-startup: %s\n' "$1"; }
die() {
    say "$1"
    exit 1
}
install() {
    # At the first boot of an image, the system itself runs apt: wait for its lock.
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        --no-install-recommends install "$@"
}

install_docker() {
    say "installing Docker"
    install docker.io docker-compose-v2 docker-buildx curl gnupg python3 zstd
}

install_driver() {
    local branch
    say "installing the GPU driver"
    install ubuntu-drivers-common
    # Ubuntu built and signed these modules for this kernel; nothing is compiled.
    ubuntu-drivers install --gpgpu
    modprobe nvidia || die "the driver does not load; see dmesg on the VM"
    branch=$(modinfo --field=version nvidia | cut -d. -f1)
    [ "$branch" -ge "$LOWEST_DRIVER" ] ||
        die "driver branch $branch is too old; CUDA 13 needs $LOWEST_DRIVER or newer"
    install "nvidia-utils-$branch-server"
}

install_toolkit() {
    say "installing NVIDIA's container toolkit"
    curl -fsSL --retry 5 "$TOOLKIT/gpgkey" | gpg --batch --yes --dearmor --output "$KEYRING"
    # apt itself inserts the architecture.
    # shellcheck disable=SC2016
    printf 'deb [signed-by=%s] %s/stable/deb/$(ARCH) /\n' "$KEYRING" "$TOOLKIT" \
        > /etc/apt/sources.list.d/nvidia-container-toolkit.list
    apt-get -q update
    install nvidia-container-toolkit
    nvidia-ctk runtime configure --runtime=docker
    systemctl restart docker
}

has() { command -v "$1" > /dev/null; }
has_gpu() { grep -qs 0x10de /sys/bus/pci/devices/*/vendor; }

if ! has docker || { has_gpu && ! has nvidia-ctk; }; then
    apt-get -q -o DPkg::Lock::Timeout=300 update
fi
has docker || install_docker
if has_gpu; then
    nvidia-smi > /dev/null 2>&1 || install_driver
    has nvidia-ctk || install_toolkit
else
    say "this machine has no NVIDIA GPU: installing Docker only"
fi
touch /run/evascore-machine-ready
say "ready after $SECONDS s"
