#!/usr/bin/env bash
# Makes the published proto into Java, and builds the client: target/interop-java, classes and lib. Does nothing where it is ready. What
# could not be had is said; what does not build is left in target/interop-java/broken, for its test to fail with.
# usage: tests/interop/clients/java/setup.sh
# needs: a JDK of 17 or later, mvn, Maven Central
set -eu
cd "$(dirname "$0")/../../../.."
here=tests/interop/clients/java
made=target/interop-java
say() { echo "$here/setup.sh: $1" >&2; exit 69; }

want=$(find $here proto/muhurdar -type f -exec cat {} + | cksum)
[ "$(cat $made/ready 2>/dev/null)" = "$want" ] && exit
# What was generated from another proto goes; what was downloaded stays.
rm -rf $made
mkdir -p $made

command -v javac >/dev/null 2>&1 || say "there is no JDK; apt-get install default-jdk-headless"
command -v mvn >/dev/null 2>&1 || say "there is no mvn; apt-get install maven"
build() { mvn -B -q "$@" -f $here/pom.xml compile dependency:copy-dependencies; }
# Without asking anybody, where everything was here before.
if build -o >$made/log 2>&1 || build >$made/log 2>&1; then
  echo "$want" >$made/ready
  exit
fi
cat $made/log >&2
if grep -q 'COMPILATION ERROR\|protoc did not exit cleanly' $made/log; then
  mv $made/log $made/broken
  exit 1
fi
say "cannot build the client; is Maven Central there, and a JDK of 17 or later?"
