python3 -m venv venv && venv/bin/pip install grpcio grpcio-tools grpcio-status

google=$(venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
venv/bin/python -m grpc_tools.protoc -I proto -I "$google" --python_out=python --pyi_out=python --grpc_python_out=python \
    muhurdar/seal/v1/seal.proto muhurdar/seal/v1/reason.proto
venv/bin/python python/first_seal.py invoice.xml sealed.xml
