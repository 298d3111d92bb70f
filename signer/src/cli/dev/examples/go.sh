# protoc with google/rpc/status.proto, from Python's packages; its plugins
python3 -m venv venv && venv/bin/pip install grpcio-tools googleapis-common-protos
GOBIN="$PWD/bin" go install google.golang.org/protobuf/cmd/protoc-gen-go@latest
GOBIN="$PWD/bin" go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@latest

# Named as the proto's go_package is, the module has in it what is generated.
module=github.com/muhurdar/muhurdar/proto
google=$(venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PATH="$PWD/bin:$PATH" venv/bin/python -m grpc_tools.protoc -I proto -I "$google" --go_out=go --go_opt=module=$module \
    --go-grpc_out=go --go-grpc_opt=module=$module muhurdar/seal/v1/seal.proto muhurdar/seal/v1/reason.proto
[ -e go/go.mod ] || (cd go && go mod init $module && go mod tidy)
go run -C go . ../invoice.xml ../sealed.xml
