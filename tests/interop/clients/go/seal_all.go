package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	sealv1 "github.com/muhurdar/muhurdar/proto/muhurdar/seal/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// snippet: stream

// Events are what a caller of sealAll hears.
type Events struct {
	Accepted func(id string, sealed []byte, response *sealv1.SealResponse) // once for each document
	Draining func()                                                        // the service is about to end
	Ended    func(*Refusal)                                                // a stream has, before all was answered
}

// sealAll seals documents, each under the id that it has here, over as many streams as it takes: the service may end in between. Each
// request has an idempotency key, which it keeps.
func sealAll(
	ctx context.Context, client sealv1.SealServiceClient, documents map[string]*sealv1.SealRequest, events Events,
) error {
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
func sealSome(
	ctx context.Context, client sealv1.SealServiceClient, unanswered map[string]*sealv1.SealRequest, events Events,
) (*Refusal, error) {
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
func write(
	ctx context.Context, stream sealv1.SealService_SealStreamClient, items map[string]*sealv1.SealRequest,
	window chan<- struct{}, again <-chan string, enough <-chan struct{},
) {
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
