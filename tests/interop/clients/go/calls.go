package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	cryptorsa "crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	sealv1 "github.com/muhurdar/muhurdar/proto/muhurdar/seal/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// calls makes each call as it is meant.
func calls(ctx context.Context) {
	check(bytes.Contains(value(firstSeal(home, address, plain())), []byte("<ds:SignatureValue")), "the document carries no seal")
	held("a first seal")
	client := branch("branch-1")
	isSealed(value(seal(ctx, client, request(plain()))))
	held("Seal")
	isSealed(value(client.Seal(ctx, request(plain()), grpc.UseCompressor(gzip.Name))))
	held("gzip")
	streams(ctx, client)
	items := []*sealv1.SealRequest{request(plain()), request([]byte("x")), request(plain())}
	batch := value(client.SealBatch(ctx, &sealv1.SealBatchRequest{Items: items})).Results
	check(len(batch) == 3, "%d results of 3 items", len(batch))
	isSealed(batch[0].GetResponse())
	isSealed(batch[2].GetResponse())
	refused := refusalOf(status.FromProto(batch[1].GetError()))
	check(refused.Code == codes.InvalidArgument && refused.Reason == "XML_MALFORMED", "the second item: %v", refused)
	held("SealBatch")
	large(ctx, client)
	patches(ctx, client)
	keys(ctx, client)
	signDigest(ctx, client)
	seals(ctx, client)
	serverInfo(ctx, client)
	health := healthv1.NewHealthClient(connection("branch-1"))
	for _, service := range []string{"", "muhurdar.seal.v1.SealService"} {
		answer := value(health.Check(ctx, &healthv1.HealthCheckRequest{Service: service}))
		check(answer.Status == healthv1.HealthCheckResponse_SERVING, "%q is %v", service, answer.Status)
	}
	held("health")
	notes := invoice(rsa, "TST2026000000005", "<cbc:Note>"+strings.Repeat("beş ", 1_000_000)+"</cbc:Note>")
	answer := value(seal(ctx, client, request(notes)))
	check(len(answer.GetSealedDocument()) > 5_000_000, "%d bytes", len(answer.GetSealedDocument()))
	held("an answer of 5 MB")
}

// streamed is what a stream answers to these items, by their ids; the drain notice is none of them.
func streamed(
	ctx context.Context, client sealv1.SealServiceClient, items map[string]*sealv1.SealRequest,
) map[string]*sealv1.SealStreamResponse {
	stream := value(client.SealStream(ctx))
	go func() {
		for id, request := range items {
			if stream.Send(&sealv1.SealStreamRequest{Id: id, Request: request}) != nil {
				return // Recv tells why.
			}
		}
		must(stream.CloseSend())
	}()
	answers := map[string]*sealv1.SealStreamResponse{}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			check(len(answers) == len(items), "%d answers to %d items", len(answers), len(items))
			return answers
		}
		must(err)
		check(items[answer.Id] != nil && answers[answer.Id] == nil, "an answer to %q", answer.Id)
		answers[answer.Id] = answer
	}
}

func streams(ctx context.Context, client sealv1.SealServiceClient) {
	answers := streamed(ctx, client, map[string]*sealv1.SealRequest{
		"good":      request(plain()),
		"malformed": request([]byte("<Invoice")),
		"another's": request(invoice(ec, "TST2026000000001", "")),
		"as good":   request(plain()),
	})
	isSealed(answers["good"].GetResponse())
	isSealed(answers["as good"].GetResponse())
	for id, reason := range map[string]string{"malformed": "XML_MALFORMED", "another's": "TAXPAYER_MISMATCH"} {
		refused := refusalOf(status.FromProto(answers[id].GetError()))
		check(refused.Reason == reason, "%s: %v", id, refused)
	}
	held("SealStream")

	hasty := request(plain())
	hasty.Timeout = durationpb.New(time.Millisecond)
	answers = streamed(ctx, client, map[string]*sealv1.SealRequest{"hasty": hasty, "patient": request(plain())})
	refused := refusalOf(status.FromProto(answers["hasty"].GetError()))
	check(refused.Code == codes.DeadlineExceeded && refused.Reason == "DEADLINE", "a time-out of 1 ms: %v", refused)
	isSealed(answers["patient"].GetResponse())
	held("a time-out of one item")

	limit := value(client.GetServerInfo(ctx, &sealv1.GetServerInfoRequest{})).GetLimits().GetMessageBytes()
	answers = streamed(ctx, client, map[string]*sealv1.SealRequest{
		"before": request(plain()), "too large": request(bytes.Repeat([]byte(" "), int(limit))), "after": request(plain()),
	})
	isSealed(answers["before"].GetResponse())
	isSealed(answers["after"].GetResponse())
	tooLarge(refusalOf(status.FromProto(answers["too large"].GetError())), limit)
	held("an item that is too large")
}

// large sends a document in chunks and reads it back.
func large(ctx context.Context, client sealv1.SealServiceClient) {
	document := invoice(rsa, "TST2026000000002", "<cbc:Note>"+strings.Repeat("uzun ", 500_000)+"</cbc:Note>")
	for _, kind := range []sealv1.AnswerKind{sealv1.AnswerKind_ANSWER_KIND_DOCUMENT, sealv1.AnswerKind_ANSWER_KIND_PATCH} {
		header := &sealv1.SealLargeHeader{Taxpayer: rsa, Size: proto.Uint64(uint64(len(document))), Options: &sealv1.SealOptions{Answer: kind}}
		sealed, result, err := sealLarge(ctx, client, header, document)
		must(err)
		check(bytes.Contains(sealed, []byte("<ds:SignatureValue")) && result.GetReceipt().GetId() != "", "%v: %v", kind, result)
		held("SealLarge, " + kind.String())
	}
}

func patches(ctx context.Context, client sealv1.SealServiceClient) {
	asked := request(plain())
	asked.Options = &sealv1.SealOptions{Answer: sealv1.AnswerKind_ANSWER_KIND_PATCH}
	answer := value(client.Seal(ctx, asked))
	sealed := splice(asked.Document, answer.GetPatch())
	digest := sha256.Sum256(sealed)
	check(answer.GetPatch() != nil && bytes.Equal(digest[:], answer.GetResult().GetSealedDocumentSha256()), "the patch does not fit")
	check(bytes.Contains(sealed, []byte("<ds:SignatureValue")), "the patch has no seal")
	held("a patch")
}

func keys(ctx context.Context, client sealv1.SealServiceClient) {
	check(value(client.Seal(ctx, request(plain()))).GetResult().GetKeptUntil() == nil, "a seal without a key is kept")
	asked := request(plain())
	asked.IdempotencyKey = rand.Text()
	first, second := value(client.Seal(ctx, asked)), value(client.Seal(ctx, asked))
	check(bytes.Equal(first.GetSealedDocument(), second.GetSealedDocument()), "the same key, another document")
	check(first.GetResult().GetReceipt().GetId() == second.GetResult().GetReceipt().GetId(), "the same key, another receipt")
	check(!first.GetResult().GetReplayed() && second.GetResult().GetReplayed(), "the second is the one that is answered again")
	check(second.GetResult().GetKeptUntil().AsTime().After(time.Now()), "kept until %v", second.GetResult().GetKeptUntil().AsTime())
	check(first.GetResult().GetKeptUntil().AsTime().After(time.Now()), "kept until %v", first.GetResult().GetKeptUntil().AsTime())
	held("an idempotency key")
}

// signDigest has a digest signed by the key of a certificate that it has asked for, and by no other.
func signDigest(ctx context.Context, client sealv1.SealServiceClient) {
	own := value(client.GetSeal(ctx, &sealv1.GetSealRequest{Seal: &sealv1.GetSealRequest_Taxpayer{Taxpayer: rsa}})).GetSeal()
	certificate := value(x509.ParseCertificate(own.GetCertificate()))
	digest := sha256.Sum256([]byte("<ds:SignedInfo/>"))
	asked := &sealv1.SignDigestRequest{
		Taxpayer: rsa, Digest: digest[:], DigestAlgorithm: sealv1.DigestAlgorithm_DIGEST_ALGORITHM_SHA256,
		CertificateSha256: own.GetId(), IdempotencyKey: rand.Text(),
		DocumentType: sealv1.DocumentType_DOCUMENT_TYPE_INVOICE, DocumentId: "TST2026000000003",
	}
	result := value(client.SignDigest(ctx, asked)).GetResult()
	key, _ := certificate.PublicKey.(*cryptorsa.PublicKey)
	check(key != nil, "the first taxpayer's key is RSA")
	must(cryptorsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], result.GetSignatureValue()))
	check(result.GetReceipt().GetDocumentId() == "TST2026000000003", "the receipt is %v", result.GetReceipt())
	again := value(client.SignDigest(ctx, asked)).GetResult()
	check(again.GetReplayed() && again.GetReceipt().GetId() == result.GetReceipt().GetId(), "the same key: %v", again)
	held("SignDigest")

	other := proto.CloneOf(asked)
	other.CertificateSha256, other.IdempotencyKey = bytes.Repeat([]byte{1}, 32), ""
	_, err := client.SignDigest(ctx, other)
	certificateChanged(refusalOf(status.Convert(err)), other.CertificateSha256, own.GetId())
	held("SignDigest for another certificate")
}

// seals reads the list page by page, and each of its seals.
func seals(ctx context.Context, client sealv1.SealServiceClient) {
	var chosen, others []string
	pages := 0
	for asked := (&sealv1.ListSealsRequest{PageSize: 1}); ; pages++ {
		page := value(client.ListSeals(ctx, asked))
		check(len(page.Seals) <= 1 && pages < 10, "page %d has %d seals", pages, len(page.Seals))
		for _, seal := range page.Seals {
			id := sha256.Sum256(seal.Certificate)
			check(bytes.Equal(id[:], seal.Id), "the id of %s is not its certificate's digest", seal.Taxpayer)
			byID := value(client.GetSeal(ctx, &sealv1.GetSealRequest{Seal: &sealv1.GetSealRequest_Id{Id: seal.Id}})).Seal
			check(proto.Equal(byID, seal), "%s by its id is %v", seal.Taxpayer, byID)
			if seal.State != sealv1.SealState_SEAL_STATE_USABLE {
				check(seal.StateDetail != "", "%s cannot seal, and nobody says why: %v", seal.Taxpayer, seal)
				check(seal.State == sealv1.SealState_SEAL_STATE_EXPIRED, "%s is %v", seal.Taxpayer, seal)
				others = append(others, seal.Taxpayer)
				continue
			}
			check(seal.Chosen && seal.StateDetail == "", "%s is %v", seal.Taxpayer, seal)
			check(seal.NotAfter.AsTime().After(time.Now()), "%s ends %v", seal.Taxpayer, seal.NotAfter.AsTime())
			byTaxpayer := value(client.GetSeal(ctx, &sealv1.GetSealRequest{Seal: &sealv1.GetSealRequest_Taxpayer{Taxpayer: seal.Taxpayer}})).Seal
			check(proto.Equal(byTaxpayer, seal), "%s is sealed with %v", seal.Taxpayer, byTaxpayer)
			chosen = append(chosen, seal.Taxpayer)
		}
		if page.NextPageToken == "" {
			break
		}
		asked.PageToken = page.NextPageToken
	}
	check(strings.Join(chosen, " ") == rsa+" "+ec, "the seals are those of %v", chosen)
	check(slices.Equal(others, strings.Fields(os.Getenv("MUHURDAR_ENDED"))), "others than those that have ended: %v", others)
	held("ListSeals in pages, GetSeal")

	_, err := client.ListSeals(ctx, &sealv1.ListSealsRequest{PageToken: "the next one"})
	refused := refusalOf(status.Convert(err))
	check(refused.Reason == "REQUEST" && refused.Metadata["field"] == "page_token", "a page token that is none: %v", refused)
	held("a page token that is none")
}

func serverInfo(ctx context.Context, client sealv1.SealServiceClient) {
	info := value(client.GetServerInfo(ctx, &sealv1.GetServerInfoRequest{}))
	limits, caller := info.GetLimits(), info.GetCaller()
	check(strings.Count(info.Version, ".") >= 2, "version %q", info.Version)
	check(limits.GetDocumentBytes() > 0 && limits.GetMessageBytes() > limits.GetDocumentBytes(), "limits: %v", limits)
	check(limits.GetMessageBytes()+64<<10 <= maxAnswer, "an answer may have more than %d bytes", maxAnswer)
	check(limits.GetStreamInFlight() >= 64, "limits: %v", limits)
	check(limits.GetBatchItems() > 0 && limits.GetRequestTimeout().AsDuration() > 0, "limits: %v", limits)
	check(info.GetIdempotencyWindow().AsDuration() > 0, "no window")
	check(len(info.Levels) > 0 && info.Levels[0] == sealv1.Level_LEVEL_BES, "levels %v", info.Levels)
	check(caller.GetClient() == "branch-1" && len(caller.GetRights()) == 3, "the caller: %v", caller)
	check(caller.GetCertificateNotAfter().AsTime().After(time.Now()), "the caller: %v", caller)
	held("GetServerInfo")
}
