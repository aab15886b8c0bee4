#!/bin/sh
# That the driver tells the seed of what fails, and that this fails again: driver_check.sh PROGRAM
set -u
said=$("$1" --seconds 10 --seed random 2>&1) && exit 1
seed=$(echo "$said" | sed -n 's/^run it again with --runs 1 --seed //p')
[ -n "$seed" ] || exit 1
"$1" --runs 1 --seed "$seed" && exit 1
exec "$1" --runs 0
