package main

// snippet: first-seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"time"

	sealv1 "github.com/muhurdar/muhurdar/proto/muhurdar/seal/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

func firstSeal(home, address string, invoice []byte) ([]byte, error) {
	own, err := tls.LoadX509KeyPair(home+"/clients/branch-1.crt", home+"/clients/branch-1.key")
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(home + "/ca.crt")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	secure := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(secure)),
		// Without this option what is larger than 4 MiB is lost on its way back, after it was sealed.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32<<20)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request := &sealv1.SealRequest{Taxpayer: "1000000000", Document: invoice, IdempotencyKey: rand.Text()}
	response, err := sealv1.NewSealServiceClient(conn).Seal(ctx, request)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(response.GetSealedDocument())
	if !bytes.Equal(digest[:], response.GetResult().GetSealedDocumentSha256()) {
		return nil, errors.New("what came is not what was sealed")
	}
	return response.GetSealedDocument(), nil
}

// end snippet
