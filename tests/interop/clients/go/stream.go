package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	sealv1 "github.com/muhurdar/muhurdar/proto/muhurdar/seal/v1"
	"google.golang.org/grpc/codes"
)

// stream seals COUNT documents while the test ends the service, and tells of each accepted answer: id, SHA-256, receipt.
func stream(ctx context.Context, count int) {
	documents := map[string]*sealv1.SealRequest{}
	for n := range count {
		number := fmt.Sprintf("TST2026%09d", n+1)
		// The key is made once. A program that may itself be killed writes it down before it sends anything.
		documents[number] = &sealv1.SealRequest{Taxpayer: rsa, Document: invoice(rsa, number, ""), IdempotencyKey: rand.Text()}
	}
	accepted, draining := map[string]bool{}, false
	must(sealAll(ctx, branch("branch-1"), documents, Events{
		Accepted: func(id string, sealed []byte, response *sealv1.SealResponse) {
			check(documents[id] != nil && !accepted[id], "%s is accepted again", id)
			receipt := response.GetResult().GetReceipt()
			check(receipt.GetDocumentId() == id, "%s has the receipt of %s", id, receipt.GetDocumentId())
			accepted[id] = true
			fmt.Printf("%s %x %s\n", id, sha256.Sum256(sealed), receipt.GetId())
		},
		Draining: func() {
			draining = true
			held("the drain notice")
		},
		Ended: func(why *Refusal) {
			fmt.Printf("ended: %v, %d of %d are sealed\n", why, len(accepted), count)
			if draining {
				check(why.Code == codes.Unavailable && why.Reason == "DRAINING", "after its notice a stream ends with %v", why)
				check(why.RetryAfter > 0 && why.Turkish != "", "DRAINING says when to come again, and so in Turkish: %v", why)
				held("DRAINING")
			}
			draining = false
		},
	}))
	check(len(accepted) == count, "%d of %d are sealed", len(accepted), count)
	fmt.Printf("sealed: %d\n", count)
}
