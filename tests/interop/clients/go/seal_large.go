package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"

	sealv1 "github.com/muhurdar/muhurdar/proto/muhurdar/seal/v1"
	"google.golang.org/grpc/status"
)

// snippet: large

// sealLarge seals what is too large for one message. What came of an answer that has no fitting end is thrown away.
func sealLarge(
	ctx context.Context, client sealv1.SealServiceClient, header *sealv1.SealLargeHeader, document []byte,
) ([]byte, *sealv1.SealResult, error) {
	stream, err := client.SealLarge(ctx)
	if err != nil {
		return nil, nil, err
	}
	go func() {
		defer stream.CloseSend()
		if stream.Send(&sealv1.SealLargeRequest{Part: &sealv1.SealLargeRequest_Header{Header: header}}) != nil {
			return // Recv tells why.
		}
		for rest := document; len(rest) > 0; {
			chunk := rest[:min(len(rest), 256<<10)]
			if stream.Send(&sealv1.SealLargeRequest{Part: &sealv1.SealLargeRequest_Chunk{Chunk: chunk}}) != nil {
				return
			}
			rest = rest[len(chunk):]
		}
	}()
	var sealed []byte
	var result *sealv1.SealLargeResult
	var end *sealv1.SealLargeEnd
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, refusalOf(status.Convert(err))
		}
		switch part := answer.Part.(type) {
		case *sealv1.SealLargeResponse_Result:
			result = part.Result
			if result.Patch != nil {
				sealed = splice(document, result.Patch)
			}
		case *sealv1.SealLargeResponse_Chunk:
			sealed = append(sealed, part.Chunk...)
		case *sealv1.SealLargeResponse_End:
			end = part.End
		}
	}
	digest := sha256.Sum256(sealed)
	if end.GetSize() != uint64(len(sealed)) || !bytes.Equal(end.GetSealedDocumentSha256(), digest[:]) {
		return nil, nil, errors.New("the sealed document is not whole")
	}
	return sealed, result.GetResult(), nil
}

// end snippet
