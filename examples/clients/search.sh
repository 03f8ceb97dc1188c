#!/bin/sh
# Search images by text: sh search.sh INDEX "a cup of coffee". Requires curl and jq.
# STAIR_ES_URL is the cluster, STAIR_ES_ENCODER_URL the service that converts a text to a query (stair-es encoder --index INDEX), and
# STAIR_ES_ENCODER_TOKEN its access token.
set -eu

post() { # URL, headers...; the body comes from stdin
    curl -sS --fail-with-body -m 10 -H 'content-type: application/json' -d @- "$@"
}

fail() {
    echo "$1" >&2
    exit 1
}

text=$(jq -n --arg text "$2" '{text: $text, k: 3, cut: true, describe: true}') # cut leaves weak matches out
query=$(printf %s "$text" | post "$STAIR_ES_ENCODER_URL/v1/query" -H "authorization: Bearer ${STAIR_ES_ENCODER_TOKEN-}") || fail "$query"
printf %s "$query" | jq -r '(.unknown_words[] | "unknown word: \(.word)"), .remarks[]' >&2
hits=$(printf %s "$query" | jq .body | post "$STAIR_ES_URL/$1/_search") || fail "$hits"
printf %s "$hits" | jq -r 'if .hits.hits == [] then "no good match" else .hits.hits[] | "\(._score) \(._source.uri)" end'
