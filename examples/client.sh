#!/bin/sh
# A client in another language: curl and the shell, nothing else (curl 7.82 or newer, for --json).
#
# Usage: client.sh DATA_DIR [FILE]
# DATA_DIR is the daemon's data directory; `make run` prints it. FILE is counted by the task `wc`.
set -eu

[ $# -ge 1 ] || { sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 2; }
data_dir=$1
file=$(realpath "${2:-$0}")

url=$(sed 's/.*"url": *"\([^"]*\)".*/\1/' "$data_dir/endpoint.json")
# The token goes into a header file, not on the command line, where every user of the machine could read it.
ask() { printf 'Authorization: Bearer %s\n' "$(cat "$data_dir/token")" | curl -sS --fail-with-body -H @- "$@"; }
field() { sed 's/.*"'"$1"'":"\([^"]*\)".*/\1/'; }

echo '== submit; the reply comes once the job is stored'
job=$(ask --json '{"task":"digest","args":{"path":"'"$file"'"}}' "$url/v1/jobs")
path=$(printf '%s' "$job" | field self)
echo "$path"

echo '== wait for its result'
ask "$url$path/result?wait=30"
echo

echo '== submit and wait in one request'
ask -H 'Prefer: wait=10' --json '{"task":"wc","args":{"path":"'"$file"'"}}' "$url/v1/jobs"
echo

echo '== submit and follow all events, as they come'
ask -N -H 'Accept: application/x-ndjson' \
    --json '{"task":"tokens","args":{"text":"word by word","pause_s":0.2}}' "$url/v1/jobs"

echo '== three jobs in one request; one is refused, the results of the others follow in the same reply'
ask -H 'Content-Type: application/x-ndjson' "$url/v1/jobs/bulk?follow=out" --data-binary '
{"task":"slow_square","args":{"n":3,"pause_s":0.1}}
{"task":"slow_square","args":[12,0.1]}
{"task":"slow_square","args":{"n":"seven"}}
'
