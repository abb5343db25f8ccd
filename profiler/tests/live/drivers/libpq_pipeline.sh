#!/bin/sh
# Builds Postgres's own test of pipelines from Debian's source package, in the folder $1, with the traces that it is
# compared with. The lists and caches of the system's apt are left alone.
set -e
cd "$1"
. /etc/os-release
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $VERSION_CODENAME main" > sources.list
mkdir -p lists/partial cache/archives/partial source
apt() {
    apt-get -q -o Dir::Etc::sourcelist="$PWD/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$PWD/lists" -o Dir::Cache="$PWD/cache" -o APT::Sandbox::User=root "$@"
}
apt update
apt --download-only source postgresql-15
# What it is made of, without the server; the library itself is the system's.
tar xf postgresql-15_*.orig.tar.bz2 -C source --strip-components 1 --wildcards '*/src/test/modules/libpq_pipeline/*' \
    '*/src/include/*' '*/src/backend/catalog/*_d.h' '*/src/common/*.c' '*/src/port/*.c'
cd source
gcc -O1 -w -D_GNU_SOURCE -DFRONTEND -Isrc/include -Isrc/backend -I/usr/include/postgresql \
    src/test/modules/libpq_pipeline/libpq_pipeline.c src/common/fe_memutils.c src/common/psprintf.c \
    src/port/snprintf.c src/port/strerror.c -lpq -o libpq_pipeline
cp -r src/test/modules/libpq_pipeline/traces ..
# The last one: who finds it needs nothing else.
mv libpq_pipeline ..
cd ..
rm -r source lists cache postgresql-15_*
