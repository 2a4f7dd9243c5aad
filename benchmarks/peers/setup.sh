#!/bin/sh
# Environments of the frameworks that bench_round.py compares with, each by itself, since their
# requirements exclude one another. From the repository's root:
#
#   sh benchmarks/peers/setup.sh        # makes benchmarks/peers/.venv-flower and .venv-pfl, 4 GB
#   python benchmarks/bench_round.py --peers
set -eu
python=${PYTHON:-python3}
here=benchmarks/peers
for peer in flower pfl; do
  case $peer in
    flower) package='flwr[simulation]>=1.41,<1.43' ;;
    pfl) package='pfl[pytorch]==0.6.0' ;;
  esac
  $python -m venv "$here/.venv-$peer"
  # Only what the work itself depends on: pfl excludes others of the versions in constraints.txt.
  grep -E '^(torch|numpy|pytorch-lightning|torchmetrics|jsonargparse)==' constraints.txt \
    > "$here/.venv-$peer/constraints.txt"
  "$here/.venv-$peer/bin/python" -m pip install -qq -c "$here/.venv-$peer/constraints.txt" -e . "$package"
done
