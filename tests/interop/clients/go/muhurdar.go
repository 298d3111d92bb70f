package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"sync"
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

// snippet: first-seal

// firstSeal seals one invoice. HOME has the authority's certificate, and the caller's own with its key.
func firstSeal(address, home string, invoice []byte) (*sealv1.SealResponse, error) {
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
	secure := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots, MinVersion: tls.VersionTLS13})
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(secure))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request := &sealv1.SealRequest{Taxpayer: "1000000000", Document: invoice, IdempotencyKey: rand.Text()}
	return sealv1.NewSealServiceClient(conn).Seal(ctx, request)
}

// end snippet

// snippet: dial

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
		// The default of 4 MiB throws away the answer to a document of 5 MB, after it was sealed. ServerLimits.message_bytes and
		// 64 KiB is what there may be.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(20<<20), grpc.WaitForReady(true)),
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
	return pause + mathrand.N(pause/2+1), true
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
	if digest := sha256.Sum256(sealedDocument(request, response)); !bytes.Equal(digest[:], response.GetResult().GetSealedDocumentSha256()) {
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

// snippet: stream

// Events are what a caller of sealAll hears.
type Events struct {
	Accepted func(id string, sealed []byte, response *sealv1.SealResponse) // once for each document
	Draining func()                                                        // the service is about to end
	Ended    func(*Refusal)                                                // a stream has, before all was answered
}

// sealAll seals documents, each under the id that it has here, over as many streams as it takes: the service may end in between. Each
// request has an idempotency key, which it keeps.
func sealAll(ctx context.Context, client sealv1.SealServiceClient, documents map[string]*sealv1.SealRequest, events Events) error {
	unanswered := maps.Clone(documents)
	for try := 0; ; try++ {
		before := len(unanswered)
		ended, err := sealSome(ctx, client, unanswered, events)
		if err != nil || len(unanswered) == 0 {
			return err
		}
		events.Ended(ended)
		if len(unanswered) < before {
			try = 0
		}
		pause, again := ended.again(try)
		if !again {
			return ended
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ended
		}
	}
}

// sealSome does so over one stream, takes from unanswered what is answered, and tells how the stream ended. An error is a document's.
func sealSome(ctx context.Context, client sealv1.SealServiceClient, unanswered map[string]*sealv1.SealRequest, events Events) (*Refusal, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.SealStream(ctx)
	if err != nil {
		return refusalOf(status.Convert(err)), nil
	}
	// Writing goes on beside reading: the service stops reading where nobody reads its answers.
	window := make(chan struct{}, 64)       // as many as may be on their way
	again := make(chan string, cap(window)) // refused, and their pause is over
	enough := make(chan struct{})           // closed: nothing more is to be written
	stop := sync.OnceFunc(func() { close(enough) })
	go write(ctx, stream, maps.Clone(unanswered), window, again, enough)

	tries := map[string]int{}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &Refusal{Code: codes.Unavailable, Message: "the stream ended before all was answered"}, nil
		}
		if err != nil {
			// DRAINING: what is unanswered was not sealed. Anything else: nobody knows, and the keys see to it.
			return refusalOf(status.Convert(err)), nil
		}
		if answer.GetDraining() != nil {
			stop() // No more over this stream; what was read is still answered.
			events.Draining()
			continue
		}
		request, asked := unanswered[answer.Id]
		if !asked {
			continue // Answered already: the first one counts.
		}
		switch outcome := answer.Outcome.(type) {
		case *sealv1.SealStreamResponse_Response:
			if err := whole(request, outcome.Response); err != nil {
				return nil, fmt.Errorf("%s: %w", answer.Id, err)
			}
			delete(unanswered, answer.Id)
			events.Accepted(answer.Id, sealedDocument(request, outcome.Response), outcome.Response)
			<-window
			if len(unanswered) == 0 {
				stop()
			}
		case *sealv1.SealStreamResponse_Error:
			refusal := refusalOf(status.FromProto(outcome.Error))
			pause, may := refusal.again(tries[answer.Id])
			if !may {
				return nil, fmt.Errorf("%s: %w", answer.Id, refusal)
			}
			// It keeps its place in the window: who is refused much sends little.
			tries[answer.Id]++
			time.AfterFunc(pause, func() { again <- answer.Id })
		default:
			return nil, fmt.Errorf("%s: an answer that says nothing", answer.Id)
		}
	}
}

// write sends items, each when the window has room, and those that come again.
func write(ctx context.Context, stream sealv1.SealService_SealStreamClient, items map[string]*sealv1.SealRequest, window chan<- struct{}, again <-chan string, enough <-chan struct{}) {
	defer stream.CloseSend()
	ids := slices.Collect(maps.Keys(items))
	for {
		room, id := window, ""
		if len(ids) == 0 {
			room = nil // which is never ready
		}
		select {
		case room <- struct{}{}:
			id, ids = ids[0], ids[1:]
		case id = <-again:
		case <-enough:
			return
		case <-ctx.Done():
			return
		}
		if stream.Send(&sealv1.SealStreamRequest{Id: id, Request: items[id]}) != nil {
			return // Recv tells why.
		}
	}
}

// end snippet
