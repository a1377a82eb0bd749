# Installs the optional Python packages that are locked, and Debian's packages ($@) that are missing, if that may be done
# here without asking. Never fails: the tests that need what is not there say so, and are skipped.
python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-extras.txt ||
    echo "the packages of requirements-extras.txt could not be installed"

command -v apt-get >/dev/null || exit 0
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo --non-interactive"
$as_root true 2>/dev/null || exit 0

for package in "$@"; do
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" != installed ] || continue
    [ -n "$updated" ] || $as_root apt-get update -qq >/dev/null 2>&1
    updated=yes
    echo "installing $package"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "$package" \
        >/dev/null 2>&1 || echo "$package could not be installed"
done
exit 0
