# shellcheck shell=bash
# The keeping clients of all languages under load. Sourced by examples/run.

keep_all() { :; }
