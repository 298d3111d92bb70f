package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	sealv1 "github.com/muhurdar/muhurdar/proto/muhurdar/seal/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// refused is the refusal of a call, which must be this one, and as the contract says: ErrorInfo first, Turkish last, and where it may be
// sent again, when.
func refused(err error, trailer metadata.MD, code codes.Code, reason string) *Refusal {
	check(err != nil, "%s: was not refused", reason)
	told := status.Convert(err)
	refusal := refusalOf(told)
	check(refusal.Code == code && refusal.Reason == reason, "%v for %v %s", refusal, code, reason)
	_, known := sealv1.Reason_value["REASON_"+reason]
	check(known, "the proto has no REASON_%s", reason)
	details := told.Details()
	info, first := details[0].(*errdetails.ErrorInfo)
	check(first && info.Domain == "muhurdar", "%s: the first detail is %v", reason, details[0])
	turkish, last := details[len(details)-1].(*errdetails.LocalizedMessage)
	check(last && turkish.Locale == "tr" && turkish.Message != "", "%s: the last detail is %v", reason, details[len(details)-1])
	pushback := trailer.Get("grpc-retry-pushback-ms")
	if code == codes.Unavailable || code == codes.ResourceExhausted {
		check(refusal.RetryAfter > 0, "%s: no RetryInfo", reason)
		// Whole milliseconds there, and no sooner.
		ms := refusal.RetryAfter.Milliseconds()
		check(len(pushback) == 1, "%s: grpc-retry-pushback-ms is %q", reason, pushback)
		said, err := strconv.ParseInt(pushback[0], 10, 64)
		check(err == nil && (said == ms || said == ms+1), "%s: grpc-retry-pushback-ms is %q, RetryInfo %v", reason, pushback, refusal.RetryAfter)
	} else {
		check(len(pushback) == 0 && refusal.RetryAfter == 0, "%s: may not be sent again, and says when", reason)
	}
	return refusal
}

// sealing asks for a seal that is refused.
func sealing(ctx context.Context, client sealv1.SealServiceClient, request *sealv1.SealRequest, code codes.Code, reason string) *Refusal {
	var trailer metadata.MD
	_, err := client.Seal(ctx, request, grpc.Trailer(&trailer))
	return refused(err, trailer, code, reason)
}

// has compares metadata; those of a place are compared by at.
func (r *Refusal) has(expected map[string]string) {
	for key, value := range expected {
		check(r.Metadata[key] == value, "%s: %s is %q, not %q", r.Reason, key, r.Metadata[key], value)
	}
}

// at compares the place with one in the document, whose line and column are counted here.
func (r *Refusal) at(document []byte, least int) {
	offset, err := strconv.Atoi(r.Metadata["offset"])
	check(err == nil && least <= offset && offset <= len(document), "%s: offset %q, not from %d", r.Reason, r.Metadata["offset"], least)
	before := document[:offset]
	r.has(map[string]string{
		"line":   strconv.Itoa(1 + bytes.Count(before, []byte("\n"))),
		"column": strconv.Itoa(1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])),
	})
	check(slices.Equal(r.Fields, []string{"document"}), "%s: the field is %q", r.Reason, r.Fields)
}

// about compares the field that makes no sense.
func (r *Refusal) about(field string) {
	check(slices.Equal(r.Fields, []string{field}), "%s: the field is %q, not %s", r.Reason, r.Fields, field)
}

func tooLarge(r *Refusal, limit uint64) {
	check(r.Code == codes.InvalidArgument && r.Reason == "MESSAGE_TOO_LARGE", "%v for MESSAGE_TOO_LARGE", r)
	r.has(map[string]string{"limit": "message_bytes", "value": strconv.FormatUint(limit, 10)})
	size, err := strconv.ParseUint(r.Metadata["size"], 10, 64)
	check(err == nil && size > limit, "size %q beyond %d", r.Metadata["size"], limit)
}

func certificateChanged(r *Refusal, requested, named []byte) {
	check(r.Code == codes.FailedPrecondition && r.Reason == "CERTIFICATE_CHANGED", "%v for CERTIFICATE_CHANGED", r)
	r.has(map[string]string{"requested": hex.EncodeToString(requested), "named": hex.EncodeToString(named)})
}

// refusals provokes each reason that a caller can.
func refusals(ctx context.Context) {
	client := branch("branch-1")
	documents(ctx, client)
	certificates(ctx, client)
	requests(ctx, client)
	rights(ctx, client)
	quota(ctx)
	overload(ctx, client)
}

// documents that cannot be sealed.
func documents(ctx context.Context, client sealv1.SealServiceClient) {
	sealed := value(client.Seal(ctx, request(plain()))).GetSealedDocument()
	for _, wrong := range []struct {
		document []byte
		code     codes.Code
		reason   string
		from     string // where the place is, at the soonest
	}{
		{invoice(rsa, "1", "<cbc:Note>ş</cbc:Note><a></b>"), codes.InvalidArgument, "XML_MALFORMED", "<a>"},
		{[]byte("<!-- ş --><!DOCTYPE a><a/>"), codes.InvalidArgument, "XML_DTD_FORBIDDEN", "<!DOCTYPE"},
		{[]byte("<!-- ş --><a/>"), codes.InvalidArgument, "DOCUMENT_TYPE", "<a"},
		{invoice(rsa, "1", "<a>ş</a><ext:UBLExtensions/>"), codes.InvalidArgument, "SEAL_PLACE", "<ext:UBLExtensions/>"},
		{sealed, codes.FailedPrecondition, "ALREADY_SEALED", "<ds:Signature"},
	} {
		refusal := sealing(ctx, client, request(wrong.document), wrong.code, wrong.reason)
		refusal.at(wrong.document, bytes.Index(wrong.document, []byte(wrong.from)))
		held(wrong.reason)
	}
	typed := request(plain())
	typed.Options = &sealv1.SealOptions{DocumentType: sealv1.DocumentType_DOCUMENT_TYPE_CREDIT_NOTE}
	refusal := sealing(ctx, client, typed, codes.InvalidArgument, "DOCUMENT_TYPE")
	requested, named := refusal.Metadata["requested"], refusal.Metadata["named"]
	check(requested != "" && named != "" && requested != named, "DOCUMENT_TYPE: %v", refusal.Metadata)

	limits := value(client.GetServerInfo(ctx, &sealv1.GetServerInfoRequest{})).GetLimits()
	deep := invoice(rsa, "1", strings.Repeat("<a>", int(limits.Depth))+strings.Repeat("</a>", int(limits.Depth)))
	refusal = sealing(ctx, client, request(deep), codes.InvalidArgument, "XML_LIMIT")
	refusal.at(deep, bytes.Index(deep, []byte("<a>")))
	refusal.has(map[string]string{"limit": "depth", "value": strconv.Itoa(int(limits.Depth))})
	held("XML_LIMIT")

	refusal = sealing(ctx, client, request(invoice(ec, "1", "")), codes.FailedPrecondition, "TAXPAYER_MISMATCH")
	refusal.has(map[string]string{"requested": rsa, "named": ec})
	held("TAXPAYER_MISMATCH")
}

// certificates that are not there, are others, or have ended.
func certificates(ctx context.Context, client sealv1.SealServiceClient) {
	unknown := request(invoice("1234567890", "1", ""))
	unknown.Taxpayer = "1234567890"
	sealing(ctx, client, unknown, codes.NotFound, "SEAL_UNKNOWN").has(map[string]string{"requested": "1234567890"})
	held("SEAL_UNKNOWN")

	own := value(client.GetSeal(ctx, &sealv1.GetSealRequest{Seal: &sealv1.GetSealRequest_Taxpayer{Taxpayer: rsa}})).GetSeal()
	other := request(plain())
	other.Options = &sealv1.SealOptions{CertificateSha256: bytes.Repeat([]byte{1}, 32)}
	certificateChanged(sealing(ctx, client, other, codes.FailedPrecondition, "CERTIFICATE_CHANGED"), other.Options.CertificateSha256, own.GetId())
	other.Options.CertificateSha256 = own.GetId()
	isSealed(value(client.Seal(ctx, other)))
	held("CERTIFICATE_CHANGED")

	if ended := os.Getenv("MUHURDAR_ENDED"); ended != "" {
		seal := value(client.GetSeal(ctx, &sealv1.GetSealRequest{Seal: &sealv1.GetSealRequest_Taxpayer{Taxpayer: ended}})).GetSeal()
		asked := request(invoice(ended, "1", ""))
		asked.Taxpayer = ended
		refusal := sealing(ctx, client, asked, codes.FailedPrecondition, "CERTIFICATE_UNUSABLE")
		refusal.has(map[string]string{"named": hex.EncodeToString(seal.GetId())})
		held("CERTIFICATE_UNUSABLE")
	}
}

// requests that make no sense, or are too large, or late.
func requests(ctx context.Context, client sealv1.SealServiceClient) {
	long := request(plain())
	long.IdempotencyKey = strings.Repeat("k", 129)
	refusal := sealing(ctx, client, long, codes.InvalidArgument, "REQUEST")
	refusal.about("idempotency_key")
	refusal.has(map[string]string{"field": "idempotency_key"})
	var trailer metadata.MD
	err := connection("branch-1").Invoke(ctx, "/muhurdar.seal.v1.SealService/Stamp", long, &sealv1.SealResponse{}, grpc.Trailer(&trailer))
	refused(err, trailer, codes.Unimplemented, "REQUEST")
	held("REQUEST")

	used := request(plain())
	used.IdempotencyKey = rand.Text()
	isSealed(value(client.Seal(ctx, used)))
	used.Document = invoice(rsa, "2", "")
	sealing(ctx, client, used, codes.InvalidArgument, "IDEMPOTENCY_KEY_REUSED").about("idempotency_key")
	held("IDEMPOTENCY_KEY_REUSED")

	hasty := request(plain())
	hasty.Timeout = durationpb.New(time.Millisecond)
	sealing(ctx, client, hasty, codes.DeadlineExceeded, "DEADLINE")
	held("DEADLINE")

	limits := value(client.GetServerInfo(ctx, &sealv1.GetServerInfoRequest{})).GetLimits()
	limit := limits.GetMessageBytes()
	tooLarge(sealing(ctx, client, request(bytes.Repeat([]byte(" "), int(limit))), codes.InvalidArgument, "MESSAGE_TOO_LARGE"), limit)
	half := request(bytes.Repeat([]byte(" "), int(limit)/2))
	batch := &sealv1.SealBatchRequest{Items: []*sealv1.SealRequest{request(plain()), half, half}}
	_, err = client.SealBatch(ctx, batch, grpc.Trailer(&trailer))
	refusal = refused(err, trailer, codes.InvalidArgument, "MESSAGE_TOO_LARGE")
	tooLarge(refusal, limit)
	refusal.has(map[string]string{"item": "2"})
	held("MESSAGE_TOO_LARGE")

	header := &sealv1.SealLargeHeader{Taxpayer: rsa, Size: proto.Uint64(limits.GetLargeDocumentBytes() + 1)}
	_, _, err = sealLarge(ctx, client, header, nil)
	check(errors.As(err, &refusal) && refusal.Code == codes.InvalidArgument && refusal.Reason == "XML_LIMIT", "%v for XML_LIMIT", err)
	refusal.has(map[string]string{"limit": "large_document_bytes", "value": strconv.FormatUint(limits.GetLargeDocumentBytes(), 10)})
	held("XML_LIMIT, before it is sent")
}

// rights that the caller has not.
func rights(ctx context.Context, client sealv1.SealServiceClient) {
	sealing(ctx, branch("auditor"), request(plain()), codes.PermissionDenied, "ACCESS")
	held("ACCESS")
	sealing(ctx, branch(""), request(plain()), codes.Unauthenticated, "CLIENT_CERTIFICATE")
	held("CLIENT_CERTIFICATE")
}

// quota of the client "few": one document a second, two at once.
func quota(ctx context.Context) {
	few := branch("few")
	for n := 1; ; n++ {
		var trailer metadata.MD
		_, err := few.Seal(ctx, request(plain()), grpc.Trailer(&trailer))
		if err == nil {
			check(n < 20, "%d documents of a client that may one a second", n)
			continue
		}
		refusal := refused(err, trailer, codes.ResourceExhausted, "QUOTA")
		check(slices.Equal(refusal.Quota, []string{"documents_per_second"}), "QuotaFailure: %q", refusal.Quota)
		refusal.has(map[string]string{"limit": "documents_per_second", "value": "1"})
		held("QUOTA")
		// Obeyed, it is sealed in the end.
		_, err = seal(ctx, few, request(plain()))
		must(err)
		held("QUOTA, and patience")
		return
	}
}

// overload: the queue holds 8, and 60 ask at once.
func overload(ctx context.Context, client sealv1.SealServiceClient) {
	var all sync.WaitGroup
	refusals := make(chan *Refusal, 60)
	for range 60 {
		all.Go(func() {
			asked := request(plain())
			asked.Options = &sealv1.SealOptions{Priority: sealv1.Priority_PRIORITY_BULK}
			var trailer metadata.MD
			if _, err := client.Seal(ctx, asked, grpc.Trailer(&trailer)); err != nil {
				refusals <- refused(err, trailer, codes.ResourceExhausted, "OVERLOADED")
			}
		})
	}
	all.Wait()
	check(10 < len(refusals) && len(refusals) < 60, "%d of 60 are refused", len(refusals))
	(<-refusals).has(map[string]string{"limit": "queue", "value": "8"})
	held("OVERLOADED")
}

// token: the test has broken the HSM.
func token(ctx context.Context) {
	client := branch("branch-1")
	for range 3 {
		sealing(ctx, client, request(plain()), codes.Unavailable, "TOKEN_UNAVAILABLE")
	}
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := seal(short, client, request(plain()))
	var refusal *Refusal
	check(errors.As(err, &refusal) && refusal.Reason == "TOKEN_UNAVAILABLE", "after two seconds of trying: %v", err)
	held("TOKEN_UNAVAILABLE")
}

// drain: a signature takes seconds now, time enough to be told.
func drain(ctx context.Context) {
	client := branch("branch-1")
	value(client.GetServerInfo(ctx, &sealv1.GetServerInfoRequest{})) // A call that waits for its connection is not admitted.
	admitted := make(chan *sealv1.SealResponse)
	go func() { admitted <- value(client.Seal(ctx, request(plain()))) }()
	time.Sleep(time.Second)
	must(syscall.Kill(value(strconv.Atoi(os.Getenv("MUHURDAR_PID"))), syscall.SIGTERM))
	// Refused for what it is, until the signal has come.
	for told := "XML_MALFORMED"; told == "XML_MALFORMED"; {
		_, err := client.Seal(ctx, request([]byte("<Invoice")))
		told = refusalOf(status.Convert(err)).Reason
	}
	sealing(ctx, client, request(plain()), codes.Unavailable, "DRAINING")
	held("DRAINING")
	isSealed(<-admitted)
	held("what was admitted is answered")
}
