#!/usr/bin/env bash
# Makes the published proto into Go, and builds the client: target/interop-go/client. Does nothing where it is ready. What could not be
# had is said; what does not build is left in target/interop-go/broken, for its test to fail with.
# usage: tests/interop/clients/go/setup.sh
# needs: go, the Go module proxy, and protoc as tests/interop/setup.sh installs it for Python
set -eu
cd "$(dirname "$0")/../../../.."
here=tests/interop/clients/go
made=target/interop-go
python=target/interop-venv/bin/python
export GOTOOLCHAIN=local
say() { echo "$here/setup.sh: $1" >&2; exit 69; }

want=$(cat $here/* proto/muhurdar/seal/v1/*.proto | cksum)
[ -x $made/client ] && [ "$(cat $made/ready 2>/dev/null)" = "$want" ] && exit
rm -rf $made
mkdir -p $made/bin $made/proto

command -v go >/dev/null 2>&1 || say "there is no go; apt-get install golang-go, where that is 1.26 or later"
google=$($python -c 'import grpc_tools, google.rpc, pathlib; print(pathlib.Path(list(google.rpc.__path__)[0]).parents[1])' 2>/dev/null) ||
  say "there is no protoc: Python's grpcio-tools, in target/interop-venv"
# The module of what is generated: it needs what the client needs.
printf 'module github.com/muhurdar/muhurdar/proto\n\ngo 1.26.0\n' >$made/proto/go.mod
for plugin in google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc; do
  go build -C $here -buildvcs=false -o "$PWD/$made/bin/" $plugin ||
    say "cannot build $plugin; is the Go module proxy there, and Go 1.26 or later?"
done
go mod download -C $here google.golang.org/{grpc,protobuf,genproto/googleapis/rpc} golang.org/x/{net,sys,text} ||
  say "cannot download the client's modules; is the Go module proxy there?"

root=github.com/muhurdar/muhurdar/proto
if PATH=$PWD/$made/bin:$PATH $python -m grpc_tools.protoc -Iproto "-I$google" \
  --go_out=$made/proto --go_opt=module=$root --go-grpc_out=$made/proto --go-grpc_opt=module=$root \
  muhurdar/seal/v1/seal.proto muhurdar/seal/v1/reason.proto &&
  go build -C $here -buildvcs=false -o "$PWD/$made/client" .; then
  echo "$want" >$made/ready
fi 2>$made/log
[ -e $made/ready ] && exit
mv $made/log $made/broken
cat $made/broken >&2
exit 1
