# shellcheck shell=bash disable=SC2034
# Functions that the commands of this folder share; sourced, never run.
#
# Options or the environment name the VM: VM_NAME, VM_ZONE, VM_PROJECT.
# No secret is ever in a command line, in metadata or in the output.

name=${VM_NAME:-evascore}
zone=${VM_ZONE:-us-central1-a}
project=${VM_PROJECT:-}
# The folder of evascore on the VM. Files with this prefix survive a new copy.
vm_dir=${VM_DIR:-/opt/evascore}
poll_s=${VM_POLL_S:-10}
dry_run=
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
command_name=${0##*/}

# die MESSAGE [EXIT_CODE]
die() {
    printf '%s: %s\n' "$command_name" "$1" >&2
    exit "${2:-1}"
}

say() { printf '%s: %s\n' "$command_name" "$1"; }

# macOS comes with bash 3.2.
[ "${BASH_VERSINFO[0]}" -ge 5 ] || die "this needs bash 5, not $BASH_VERSION; on macOS: brew install bash"

# The comment at the top of a command is its help.
usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    printf '  --name NAME, --zone ZONE, --project PROJECT   the VM (default %s in %s)\n' "$name" "$zone"
    printf '  --dry-run   show the commands, run nothing\n'
}

# value OPTION [VALUE...]: the value of an option.
value() {
    [ $# -ge 2 ] || die "$1 needs a value; see $command_name --help" 2
    printf '%s' "$2"
}

# whole_number OPTION VALUE LOWEST HIGHEST
whole_number() {
    [[ $2 =~ ^[0-9]{1,6}$ ]] && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] ||
        die "$1 must be a whole number from $3 to $4, not '$2'" 2
}

# common_option "$@": reads an option that every command has; sets `taken` to its number of words.
common_option() {
    taken=2
    case $1 in
        --name) name=$(value "$@") ;;
        --zone) zone=$(value "$@") ;;
        --project) project=$(value "$@") ;;
        --dry-run) dry_run=yes taken=1 ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) die "unknown option '$1'; see $command_name --help" 2 ;;
    esac
}

# Shows a command in a form that can be typed.
show() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
}

# The options of gcloud that name the VM's zone and project.
place() { printf '%s\n' "--zone=$zone" ${project:+"--project=$project"}; }

# cloud WORDS...: runs gcloud for the VM; a failure exits with one line that names a remedy.
cloud() {
    local where reason
    mapfile -t where < <(place)
    if [ -n "$dry_run" ]; then
        show gcloud "$@" "${where[@]}"
        return
    fi
    command -v gcloud > /dev/null || die "gcloud is not installed; see cloud.google.com/sdk"
    reason=$(mktemp)
    if gcloud "$@" "${where[@]}" 2> "$reason"; then
        rm -f "$reason"
        return
    fi
    remedy "$(cat "$reason"; rm -f "$reason")"
}

# vm_state: prints RUNNING, TERMINATED, ...; nothing if there is no such VM.
vm_state() {
    local where found reason
    mapfile -t where < <(place)
    [ -z "$dry_run" ] || return 0
    command -v gcloud > /dev/null || die "gcloud is not installed; see cloud.google.com/sdk"
    reason=$(mktemp)
    if found=$(gcloud compute instances describe "$name" --format='value(status)' \
        "${where[@]}" 2> "$reason"); then
        printf '%s' "$found"
    elif ! grep -q 'was not found' "$reason"; then
        remedy "$(cat "$reason"; rm -f "$reason")"
    fi
    rm -f "$reason"
}

# authorization: prints the header with the API key of EVASCORE_API_KEY, for `curl -H @-`; no command
# line shows the key.
authorization() {
    [ -z "${EVASCORE_API_KEY:-}" ] || printf 'Authorization: Bearer %s\n' "$EVASCORE_API_KEY"
}

# on_vm COMMAND: runs a command in a shell on the VM, with this standard input and output.
on_vm() {
    local where
    mapfile -t where < <(place)
    if [ -n "$dry_run" ]; then
        show gcloud compute ssh "$name" "${where[@]}" "--command=$1"
        return
    fi
    gcloud compute ssh "$name" --quiet "${where[@]}" "--command=$1"
}

# remedy REASON: exits with the remedy for an error message of gcloud.
remedy() {
    case $1 in
        *ZONE_RESOURCE_POOL_EXHAUSTED* | *'enough resources available'*)
            die "no such GPU is free in $zone now; try another --zone, or up --on-demand" ;;
        *QUOTA_EXCEEDED* | *[Qq]uota*exceeded*)
            die "the quota is used up; request GPUS_ALL_REGIONS and PREEMPTIBLE_NVIDIA_L4_GPUS \
(NVIDIA_L4_GPUS with --on-demand) under IAM & Admin, Quotas" ;;
        *'gcloud auth login'* | *'active account'*)
            die "gcloud is not logged in; run: gcloud auth login" ;;
        *SERVICE_DISABLED* | *'has not been used in project'*)
            die "Compute Engine is not enabled in the project; run: gcloud services enable compute.googleapis.com" ;;
        *'was not found'*)
            die "there is no VM '$name' in $zone; run deploy/gcp/up, or name another VM with --name and --zone" ;;
        *) die "gcloud failed: $(printf '%s' "$1" | grep . | tail -n 1)" ;;
    esac
}

# need_running: exits unless the VM is running.
need_running() {
    local state
    state=$(vm_state)
    [ -n "$dry_run" ] || [ "$state" = RUNNING ] ||
        die "the VM '$name' in $zone is ${state:-not created}; run deploy/gcp/up first"
}
