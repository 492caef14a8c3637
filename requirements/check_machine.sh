#!/bin/sh
# Says what this machine lacks before anything is installed or started: one line per thing, with
# what to install. usage: check_machine.sh PYTHON VENV
set -u
python=$1
venv=$2
missing=0

lacks() {
    printf 'missing: %s\n' "$1" >&2
    missing=1
}

java=java
[ -n "${JAVA_HOME:-}" ] && java=$JAVA_HOME/bin/java
found=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
if [ "${found:-0}" -lt 17 ]; then
    lacks "Java 17 or newer for Spark, found ${found:-none} (apt-get install openjdk-17-jre-headless, or brew install openjdk@17; or set JAVA_HOME)"
fi

if [ ! -x "$venv/bin/muxrec" ]; then
    if [ -z "$python" ] ||
        ! "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        lacks "Python 3.11 or newer with venv (apt-get install python3.11 python3.11-venv, or brew install python@3.11; then make PYTHON=python3.11)"
    fi
    command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null ||
        lacks "a C++ compiler for hnswlib, which has no wheel (apt-get install g++, or xcode-select --install)"
    free_kb=$(df -Pk . | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\([0-9]*\).*/\1/p')
    if [ "${free_kb:-0}" -lt "${MUXREC_SETUP_KB:-6000000}" ]; then
        lacks "disk space: $((free_kb / 1000)) MB free here, the environment and the demo take 6000 MB"
    fi
fi
exit $missing
