#!/bin/sh
# Install this bundle of pais-bench without a network: check its files, build the environments, put weights in place.
set -eu
cd "$$(dirname "$$0")"
python=$$(command -v python$python || command -v python3 || true)
"$${python:-false}" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$python")' || {
    echo "install.sh: error: needs Python $python; load its module, or bundle again with --python" >&2
    exit 2
}
sha256sum --check --quiet SHA256SUMS || {
    echo "install.sh: error: the files above are damaged or missing; copy the bundle again" >&2
    exit 2
}
for name in $environments; do
    built=$$("$$python" "$build" "$$name" --offline "$$PWD/wheels")
    [ "$$name" != workflow ] || workflow=$$built
done

# Copy a file or folder to where the study looks for it; what is there stays.
place() {
    [ ! -e "$$2" ] || return 0
    mkdir -p "$$(dirname "$$2")"
    rm -rf "$$2.part" # of a call that was ended: cp would put a folder into it
    cp -r "files/$$1" "$$2.part"
    mv "$$2.part" "$$2"
    echo "$$2: copied"
}
$places
$bring
echo "ready: cd $$PWD/project && $$workflow -m pais_bench run ../study/study.yaml"
