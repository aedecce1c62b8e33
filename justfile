# Recipes for everyday work; `just` lists them.

set positional-arguments

[private]
default:
    @just --list --unsorted

# Show it: own upstream, queries with and without it, then it keeps serving
demo:
    cargo run --release -- demo

# Run a spicepod (directory or file)
run path=".":
    cargo run --release -- run {{ path }}

# Check a spicepod and everything it names
check path=".":
    cargo run --release -- check {{ path }}

# All tests; arguments go to cargo test: `just test --test it proto`
test *args:
    cargo test "$@"

# The same with every secret store, as the image has them
test-all-stores *args:
    cargo test --features all-stores "$@"

# Rewrite snapshots and generated files; read the diff afterwards
bless:
    INSTA_UPDATE=always SIDEWING_BLESS=1 cargo test --features all-stores

# Format
fmt:
    cargo fmt

# Clippy, warnings denied
lint:
    cargo clippy --all-targets --features all-stores -- -D warnings

# The library's documentation, warnings denied
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features all-stores

# Licences, bans and sources of the dependency tree
deny:
    cargo deny --all-features --target x86_64-unknown-linux-gnu check bans licenses sources

# Through the sidecar ÷ direct, push-down on ÷ off, beside crowds ÷ alone; `just bench --write` keeps the tables
bench *args:
    cargo bench --bench federated --bench pushdown --bench crowd -- "$@"

# What was promised and what is reached, of the image's build; `just goals --write` keeps the table
goals *args: dist
    SIDEWING_BINARY=target/dist/sidewing cargo bench --bench goals -- "$@"

# The image's binary, target/dist/sidewing; wants `rustup component add llvm-tools`
dist *args:
    docker/dist.sh "$@"

# The image
image:
    docker build --file docker/Dockerfile --tag sidewing .

# A core and an edge in containers, until Ctrl-C
compose:
    docker compose --file docker/compose.yaml up --build

# What has to pass before a merge
ci:
    .ci/run
