# Sourced by the checks of the toy model beside other people's Python. `environment NAME VARIABLE WHAT INSTALL…` sets $venv to a virtual
# environment that is kept in the cache, made by the function INSTALL. Where it cannot be had the check says so and
# succeeds; VARIABLE=1 makes that an error. Another NAME where the packages change.
not_run() {
    echo "not run: $what, because $*" >&2
    [ -z "${!variable:-}" ]
    exit
}

packages() {
    "$venv/bin/pip" install --quiet "$@" || not_run "pip could not install $*"
}

environment() {
    local name=$1
    variable=$2 what=$3
    venv="${XDG_CACHE_HOME:-$HOME/.cache}/pipe-ci/$name"
    [ -e "$venv/ready" ] && return
    # The system's packages are seen too, for what is too large to fetch.
    python3 -m venv --clear --system-site-packages "$venv" || not_run "python3 -m venv failed"
    "${@:4}"
    touch "$venv/ready"
}

# A scratch folder with the toy model and two prompts: one with some tokens twice, for what looks for earlier ones.
toy() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    export PIPE_STORE="$scratch/store"
    cp pipelines/tiny.gguf "$scratch/model.gguf"
    cat > "$scratch/prompts.jsonl" <<'LINES'
{"id": "twice", "text": "the cat and the hat and the cat"}
{"id": "other", "prompt": "What is the capital of France?"}
LINES
}
