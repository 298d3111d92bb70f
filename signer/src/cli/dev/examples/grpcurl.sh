# https://github.com/fullstorydev/grpcurl, and jq. What bytes are in the proto, base64 is here.

home=${MUHURDAR_HOME:-"/tmp/muhurdar"}
address=${MUHURDAR_ADDRESS:-"127.0.0.1:7443"}
printf '{ "taxpayer": "1000000000", "document": "%s" }' "$(base64 -w0 invoice.xml)" |
    grpcurl -cacert "$home/ca.crt" -cert "$home/clients/branch-1.crt" -key "$home/clients/branch-1.key" \
        -max-msg-sz $((32 << 20)) -max-time 30 -d @ "$address" muhurdar.seal.v1.SealService/Seal >answer.json
jq -r .sealedDocument answer.json | base64 -d >sealed.xml
[ "$(jq -r .result.sealedDocumentSha256 answer.json)" = "$(openssl dgst -sha256 -binary sealed.xml | base64)" ]
