#!/usr/bin/env bash
# A typical session: ingest photos into a real search node, then search by words and by image.
set -euo pipefail
cd "$(dirname "$0")"

type_and_run() {
    local word shown=""
    for word in "$@"; do
        case "$word" in *[\ \<\>]*) word="\"$word\"" ;; esac
        shown="$shown $word"
    done
    printf '\n\033[1m$%s\033[0m\n' "$shown"
    "$@"
}

export STAIR_ES_INDEX="${STAIR_ES_DEMO_INDEX:-demo}"
if [ -z "${STAIR_ES_URL:-}" ]; then
    type_and_run stair-es node up
fi
type_and_run stair-es ingest photos
type_and_run stair-es search "a bird" -k 3
type_and_run stair-es search "a castle" -k 3
type_and_run stair-es search "a bear in a tree" -k 2 --explain
type_and_run stair-es search --image photos/tabby-cat.jpg -k 3
type_and_run stair-es search "bird -water" --filter "width:>400" -k 3
type_and_run stair-es explain photos/dairy-cow.jpg "a kitten"

cat <<'TEXT'

Try it with your own photos (stair-es is in .venv/bin):

    .venv/bin/stair-es ingest ~/Pictures --index mine
    .venv/bin/stair-es search "a cup of coffee" --index mine --explain
    .venv/bin/stair-es search --image some.jpg --index mine
    .venv/bin/stair-es serve --index demo --open             search in the browser
    .venv/bin/stair-es encode some.jpg                       print the tokens of an image
    .venv/bin/stair-es query "a cup of coffee" --index mine  print the request, for your own client or curl

To use your own cluster: export STAIR_ES_URL=https://host:9200 STAIR_ES_USER=... STAIR_ES_PASSWORD=... (docs/connection.md)
The node of the demo keeps running. To show or stop it: .venv/bin/stair-es node status | down (its data remains)
TEXT
