#!/bin/sh
# sh search.sh INDEX "a cup of coffee"        plain text: documents with impacts (stair-es ingest --impact-field)
# sh search.sh INDEX kitten=0.9 cat=0.4       weighted words: every index
set -eu
[ $# -ge 2 ] || { sed -n '2,3s/^# /usage: /p' "$0" >&2; exit 2; }
index=$1
shift

quoted() { # as a JSON string
    printf '"%s"' "$(printf %s "$1" | tr '\n\t' '  ' | sed 's/[\\"]/\\&/g')"
}

case $1 in
*=*)
    id=stair-es-tokens tokens=
    for word in "$@"; do
        tokens="$tokens${tokens:+, }{\"token\": $(quoted "${word%=*}"), \"weight\": $(quoted "${word##*=}")}"
    done
    params="\"tokens\": [$tokens]"
    ;;
*) id=stair-es-match params="\"text\": $(quoted "$*")" ;;
esac

curl -sS --fail-with-body "$STAIR_ES_URL/$index/_search/template?filter_path=hits.hits._score,hits.hits._source.uri" \
    -H 'content-type: application/json' -d "{\"id\": \"$id\", \"params\": {\"size\": 3, $params}}"
echo
