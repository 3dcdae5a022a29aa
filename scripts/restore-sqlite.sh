#!/usr/bin/env bash
# n8n-backup shim: runs the command that this file is named after. All shims have the same text.
self=$(readlink -fv -- "${BASH_SOURCE[0]}" && printf x) && . "${self%/*}/lib/shim.sh"
