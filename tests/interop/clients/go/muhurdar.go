// What a program needs around the generated code.

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	sealv1 "github.com/muhurdar/muhurdar/proto/muhurdar/seal/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// snippet: connect

// maxAnswer is more than the largest answer: ServerLimits.message_bytes, and 10 KB for each seal of a batch.
const maxAnswer = 32 << 20

// dial opens a connection that outlives whatever lies between: NAME is whose certificate is shown, empty for nobody's.
func dial(address, home, name string) (*grpc.ClientConn, error) {
	authority, err := os.ReadFile(home + "/ca.crt")
	if err != nil {
		return nil, err
	}
	secure := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
	secure.RootCAs.AppendCertsFromPEM(authority)
	if name != "" {
		// Read at each handshake: files that were renewed need no restart.
		secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			own, err := tls.LoadX509KeyPair(home+"/clients/"+name+".crt", home+"/clients/"+name+".key")
			return &own, err
		}
	}
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(secure)),
		// The default of 4 MiB throws away the answer to a document of 5 MB, after it was sealed.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.WaitForReady(true)),
		// A line that died without a word is noticed by this alone.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.5, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
		// The built-in one knows nothing of RetryInfo, and gives up in silence on what is larger than its buffer.
		grpc.WithDisableRetry(),
	)
}

// end snippet

// snippet: refusal

// Refusal is what a status says: Reason is empty where it is not the service that refused.
type Refusal struct {
	Code       codes.Code
	Reason     string
	Metadata   map[string]string
	Fields     []string
	Quota      []string
	RetryAfter time.Duration
	Message    string
	Turkish    string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%v %s: %s", r.Code, r.Reason, r.Message) }

// refusalOf reads a status: that of a call, or of an item by status.FromProto.
func refusalOf(s *status.Status) *Refusal {
	refusal := &Refusal{Code: s.Code(), Message: s.Message()}
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == "muhurdar" {
				refusal.Reason, refusal.Metadata = detail.Reason, detail.Metadata
			}
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				refusal.Fields = append(refusal.Fields, violation.Field)
			}
		case *errdetails.QuotaFailure:
			for _, violation := range detail.Violations {
				refusal.Quota = append(refusal.Quota, violation.Subject)
			}
		case *errdetails.RetryInfo:
			refusal.RetryAfter = detail.RetryDelay.AsDuration()
		case *errdetails.LocalizedMessage:
			if detail.Locale == "tr" {
				refusal.Turkish = detail.Message
			}
		}
	}
	return refusal
}

// end snippet

// snippet: retry

// again tells whether a refused request may be sent again, and after how long: no sooner than the service says, later from try to try,
// and never at the same moment as everybody else. The request has an idempotency key, the same at each try.
func (r *Refusal) again(try int) (time.Duration, bool) {
	switch {
	case r.Code == codes.Unavailable: // also where nobody answered
	case r.Reason == "QUOTA", r.Reason == "OVERLOADED", r.Reason == "DEADLINE":
	case r.Reason == "INTERNAL" && try == 0:
	default:
		return 0, false // RESOURCE_EXHAUSTED without a reason among them: it is this side's own limit
	}
	pause := max(r.RetryAfter, min(100*time.Millisecond<<min(try, 5), 3*time.Second))
	return pause + rand.N(pause/2+1), true
}

// seal sends a request until it has an answer, or the time of ctx is over.
func seal(ctx context.Context, client sealv1.SealServiceClient, request *sealv1.SealRequest) (*sealv1.SealResponse, error) {
	var last *Refusal
	for try := 0; ; try++ {
		response, err := client.Seal(ctx, request)
		if err == nil {
			return response, whole(request, response)
		}
		refusal := refusalOf(status.Convert(err))
		if ctx.Err() != nil && last != nil {
			return nil, last // What the time was spent on says more than that it is over.
		}
		last = refusal
		pause, again := refusal.again(try)
		if !again {
			return nil, refusal
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, refusal
		}
	}
}

// end snippet

// whole compares what came with the digest that the service told.
func whole(request *sealv1.SealRequest, response *sealv1.SealResponse) error {
	digest := sha256.Sum256(sealedDocument(request, response))
	if !bytes.Equal(digest[:], response.GetResult().GetSealedDocumentSha256()) {
		return errors.New("the sealed document is not what the service has sealed")
	}
	return nil
}

// snippet: patch

// sealedDocument is the sealed document, whichever way it came.
func sealedDocument(request *sealv1.SealRequest, response *sealv1.SealResponse) []byte {
	if patch := response.GetPatch(); patch != nil {
		return splice(request.Document, patch)
	}
	return response.GetSealedDocument()
}

func splice(document []byte, patch *sealv1.SealPatch) []byte {
	rest := document[patch.Offset+patch.Length:]
	return bytes.Join([][]byte{document[:patch.Offset], patch.Replacement, rest}, nil)
}

// end snippet
