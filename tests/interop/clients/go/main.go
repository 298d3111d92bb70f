// A branch office in Go: everything that the published proto promises, seen from the other end.
//
// usage: MUHURDAR_HOME=FOLDER MUHURDAR_ADDRESS=HOST:PORT client calls | errors | token | drain | stream N
//
// FOLDER is that of `muhurdar dev`. MUHURDAR_PID is the process that `drain` ends, MUHURDAR_ENDED a taxpayer whose certificate has ended,
// where there is one. Prints a line for each thing that held, and ends with 1 at the first that did not. What lies in
// first_seal.go, muhurdar.go, seal_all.go and seal_large.go is for programs of yours; the rest is tests.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	sealv1 "github.com/muhurdar/muhurdar/proto/muhurdar/seal/v1"
	"google.golang.org/grpc"
)

// The seals of the tests' taxpayers: RSA-2048 and P-384.
const (
	rsa = "1000000000"
	ec  = "1000000018"
)

var home, address = os.Getenv("MUHURDAR_HOME"), os.Getenv("MUHURDAR_ADDRESS")

func main() {
	// Longer than anything here takes: nothing waits for ever.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	switch arguments := os.Args[1:]; {
	case len(arguments) == 1 && arguments[0] == "calls":
		calls(ctx)
	case len(arguments) == 1 && arguments[0] == "errors":
		refusals(ctx)
	case len(arguments) == 1 && arguments[0] == "token":
		token(ctx)
	case len(arguments) == 1 && arguments[0] == "drain":
		drain(ctx)
	case len(arguments) == 2 && arguments[0] == "stream":
		count, err := strconv.Atoi(arguments[1])
		must(err)
		stream(ctx, count)
	default:
		fail("usage: client calls | errors | token | drain | stream N")
	}
}

// connection shows the certificate of NAME, nobody's where it is empty.
func connection(name string) *grpc.ClientConn {
	conn, err := dial(address, home, name)
	must(err)
	return conn
}

func branch(name string) sealv1.SealServiceClient {
	return sealv1.NewSealServiceClient(connection(name))
}

func invoice(sealer, number, content string) []byte {
	const ubl = "urn:oasis:names:specification:ubl:schema:xsd:"
	return []byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<Invoice xmlns="` + ubl + `Invoice-2" xmlns:cac="` + ubl + `CommonAggregateComponents-2" ` +
		`xmlns:cbc="` + ubl + `CommonBasicComponents-2" xmlns:ext="` + ubl + `CommonExtensionComponents-2">` + "\n" +
		"<ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent/></ext:UBLExtension></ext:UBLExtensions>\n" +
		"<cbc:ID>" + number + "</cbc:ID>\n" +
		`<cac:Signature><cbc:ID schemeID="VKN_TCKN">` + sealer + "</cbc:ID></cac:Signature>\n" + content + "</Invoice>\n")
}

// request asks for a seal for the first taxpayer.
func request(document []byte) *sealv1.SealRequest {
	return &sealv1.SealRequest{Taxpayer: rsa, Document: document}
}

// plain is an invoice in which there is nothing wrong.
func plain() []byte { return invoice(rsa, "TST2026000000001", "") }

// isSealed looks at everything that an answer with a document says.
func isSealed(response *sealv1.SealResponse) {
	document, result := response.GetSealedDocument(), response.GetResult()
	digest := sha256.Sum256(document)
	check(bytes.Contains(document, []byte("<ds:SignatureValue")), "the document carries no seal")
	check(bytes.Equal(digest[:], result.GetSealedDocumentSha256()), "the digest is not that of the document")
	check(bytes.Contains(document, []byte(">"+result.GetSigningTime()+"<")), "%q is not the time in the seal", result.GetSigningTime())
	check(len(result.GetSignatureValue()) == 256, "a value of %d bytes by an RSA-2048 key", len(result.GetSignatureValue()))
	check(result.GetLevel() == sealv1.Level_LEVEL_BES, "level %v", result.GetLevel())
	receipt := result.GetReceipt()
	check(receipt.GetId() != "" && receipt.GetTaxpayer() == rsa && receipt.GetClient() == "branch-1", "the receipt is %v", receipt)
	check(receipt.GetDocumentType() == sealv1.DocumentType_DOCUMENT_TYPE_INVOICE, "the receipt is %v", receipt)
	check(len(receipt.GetCertificateSha256()) == 32, "the receipt is %v", receipt)
}

func held(what string) { fmt.Println("held: " + what) }

func check(holds bool, otherwise string, arguments ...any) {
	if !holds {
		fail(otherwise, arguments...)
	}
}

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

// value is what a call has answered, where it has.
func value[T any](answer T, err error) T {
	must(err)
	return answer
}

func fail(why string, arguments ...any) {
	// Where it was asked, which is in another file.
	for depth := 1; ; depth++ {
		_, file, line, there := runtime.Caller(depth)
		if filepath.Base(file) != "main.go" || !there {
			fmt.Fprintf(os.Stderr, "%s:%d: %s\n", filepath.Base(file), line, fmt.Sprintf(why, arguments...))
			os.Exit(1)
		}
	}
}
