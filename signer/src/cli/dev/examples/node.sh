npm install @grpc/grpc-js @grpc/proto-loader google-proto-files

node node/first_seal.js invoice.xml sealed.xml
