#!/bin/sh
# Sets the checkout up, one step per call.  The Makefile knows their order and when each is due:
#
#   system      C compiler, Python headers, libsodium, LMDB, OpenSSL and GMP: installed with apt-get as root on
#               Debian, only named elsewhere
#   venv        .venv with the build tools and the run-time dependencies of pyproject.toml
#   test-deps   the "test" extra of pyproject.toml, into .venv
#   release     the optimised build, installed into .venv: for `wa`, the demo and `make run`
#   debug       the build with assertions and live-object counters, in place: for the tests
#
# Both builds live side by side.  A process started in the checkout (pytest) imports the one in place; the commands in
# .venv/bin import the installed one.  Long output goes to build/setup.log; its end is shown on failure.
set -eu

cd "$(dirname "$0")/.."
VENV=.venv
LOG=build/setup.log
mkdir -p build

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Runs a command with its output in the log; on failure shows the end of it and stops.
logged() {
    if ! "$@" >"$LOG" 2>&1; then
        tail -n 40 "$LOG" >&2
        fail "failed: $* (whole output: $LOG)"
    fi
}

# --- system packages ----------------------------------------------------------------------------

find_python() {
    for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

find_compiler() { command -v "${CC:-cc}" || command -v gcc || command -v clang || true; }

has_header() {
    [ -n "$COMPILER" ] || return 1
    printf '#include <%s>\n' "$1" | "$COMPILER" $INCLUDES -E - >/dev/null 2>&1
}

# Names what is missing, one word each: python compiler headers venv sodium lmdb openssl gmp
missing() {
    PY=$(find_python)
    COMPILER=$(find_compiler)
    INCLUDES=""
    [ -d /usr/local/include ] && INCLUDES="-I/usr/local/include"
    [ -n "$COMPILER" ] || echo compiler
    if [ -z "$PY" ]; then
        echo python
    else
        include=$("$PY" -c 'import sysconfig; print(sysconfig.get_path("include"))')
        [ -f "$include/Python.h" ] || echo headers
        "$PY" -c 'import venv, ensurepip' 2>/dev/null || echo venv
    fi
    if [ -n "$COMPILER" ]; then
        has_header sodium.h || echo sodium
        has_header lmdb.h || echo lmdb
        has_header openssl/sha.h || echo openssl
        has_header gmp.h || echo gmp
    fi
}

debian_packages() {
    for what in "$@"; do
        case $what in
            python) echo python3 python3-dev python3-venv ;;
            compiler) echo gcc libc6-dev libsodium-dev liblmdb-dev libssl-dev libgmp-dev ;;
            headers) echo python3-dev ;;
            venv) echo python3-venv ;;
            sodium) echo libsodium-dev ;;
            lmdb) echo liblmdb-dev ;;
            openssl) echo libssl-dev ;;
            gmp) echo libgmp-dev ;;
        esac
    done | tr '\n' ' '
}

instructions() {
    cat >&2 <<TEXT
setup: missing: $*

Install the packages of your system, then run make again:

  Debian, Ubuntu   apt-get install gcc libc6-dev make python3-dev python3-venv libsodium-dev liblmdb-dev libssl-dev libgmp-dev
  Fedora, RHEL     dnf install gcc make python3.11-devel libsodium-devel lmdb-devel openssl-devel gmp-devel
  Arch             pacman -S gcc make python libsodium lmdb openssl gmp
  Alpine           apk add gcc musl-dev linux-headers make python3-dev libsodium-dev lmdb-dev openssl-dev gmp-dev
  openSUSE         zypper install gcc make python311-devel libsodium-devel lmdb-devel libopenssl-devel gmp-devel
  FreeBSD          pkg install python311 py311-pip py311-sqlite3 libsodium lmdb gmp   (OpenSSL is in the base system)

Python must be 3.11 or later; setup takes the first such of \$PYTHON, python3, python3.11, python3.12, python3.13.
The server runs on Linux and FreeBSD (epoll, kqueue), not on macOS.
TEXT
    exit 1
}

apt_works() { [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

step_system() {
    case $(uname -s) in
        Linux | *BSD) ;;
        *) say "$(uname -s) is neither Linux nor a BSD: the server will not run on it" ;;
    esac
    lacking=$(missing | tr '\n' ' ')
    if [ -n "$lacking" ] && apt_works; then
        packages=$(debian_packages $lacking)
        say "installing Debian packages: $packages"
        export DEBIAN_FRONTEND=noninteractive
        logged apt-get update -q
        # shellcheck disable=SC2086  # a list of words
        logged apt-get install -q -y --no-install-recommends $packages
        lacking=$(missing | tr '\n' ' ')
    fi
    # shellcheck disable=SC2086
    [ -z "$lacking" ] || instructions $lacking
}

# --- Python environment ---------------------------------------------------------------------------

# Requirements out of pyproject.toml, so that they are written down once.  $1: build, run or test
requirements() {
    "$VENV/bin/python" - "$1" <<'PYTHON'
import sys, tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
print("\n".join({
    "build": lambda: project["build-system"]["requires"],
    "run": lambda: project["project"]["dependencies"],
    "test": lambda: project["project"]["optional-dependencies"]["test"],
}[sys.argv[1]]()))
PYTHON
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

step_venv() {
    PY=$(find_python)
    # A half-made or moved environment is made anew; a good one is kept and updated.
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        say "making $VENV with $PY ($("$PY" -V))"
        logged "$PY" -m venv --clear "$VENV"
    fi
    say "installing the dependencies into $VENV"
    { requirements build; requirements run; } >build/requirements.txt
    logged pip install -r build/requirements.txt
}

step_test_deps() {
    say "installing the test tools into $VENV (with a cross compiler of 90 MB)"
    requirements test >build/requirements-test.txt
    logged pip install -r build/requirements-test.txt
}

# --- the two builds -----------------------------------------------------------------------------

step_debug() {
    say "building the fast path for the tests (about a minute when it changed)"
    # A module whose source is gone must not stay importable.
    find wa/_fastpath sim/_native bench/_load -name '*.so' | while read -r module; do
        [ -f "${module%%.*}.pyx" ] || rm -f "$module"
    done
    WA_DEBUG=1 logged "$VENV/bin/python" setup.py -q build_ext --inplace
}

step_release() {
    say "building the optimised fast path, then installing wa into $VENV (about a minute when it changed)"
    # Compiled modules are kept between builds.  Nothing else is: a deleted Python file must not be installed.
    for tree in build/lib.*; do
        [ ! -d "$tree" ] || find "$tree" -type f ! -name '*.so' -delete
    done
    WA_DEBUG=0 logged pip install --no-deps --no-build-isolation --force-reinstall .
}

case ${1:-} in
    system) step_system ;;
    venv) step_venv ;;
    test-deps) step_test_deps ;;
    release) step_release ;;
    debug) step_debug ;;
    *) fail "name a step: system, venv, test-deps, release or debug" ;;
esac
