//! The contract's error table, row by row, as a caller reads it: code, reason, and what comes with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, sync::OnceLock, time::Duration};

use muhurdar_proto::seal::v1::{
    DocumentType, GetSealRequest, ListSealsRequest, SealBatchRequest, SealOptions, SealRequest, SealState,
    SealStreamRequest, get_seal_request, seal_batch_result::Outcome as BatchOutcome, seal_response::Answer as Body,
    seal_stream_response::Outcome,
};
use muhurdar_tests::{
    Appliance, Branch, Builder, EC, RSA, Refused, certify, files, invoice, refused, refused_item, shared,
};
use tonic::Code;

#[path = "refusals/by_hand.rs"]
mod by_hand;

/// One whose branch-2 may use one taxpayer's seal only, and whose documents are small.
fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        let rights =
            |taxpayers: &str| format!("identity = \"uri:urn:muhurdar:client:branch-2\"\ntaxpayers = [\"{taxpayers}\"]");
        Builder::default()
            .edit(&rights("*"), &rights(EC))
            // `dev` leaves the audit log out.
            .env("MUHURDAR_LOG", "info")
            .client(
                "waybills",
                &format!("taxpayers = [\"{}*\"]\ndocuments = [\"despatch-advice\"]", &RSA[..4]),
            )
            .limits("document = \"1 MiB\"\nbatch_items = 8")
            .start()
    })
}

async fn refusal_of(request: SealRequest) -> Refused {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    match client.seal(request).await {
        Ok(_) => panic!("was sealed"),
        Err(status) => refused(&status),
    }
}

async fn document_refused(document: impl Into<Vec<u8>>) -> Refused {
    refusal_of(Branch::request(RSA, document)).await
}

fn is(refused: &Refused, code: Code, reason: &str) {
    assert_eq!((refused.code, refused.reason.as_str()), (code, reason), "{refused:?}");
    assert!(!refused.message.is_empty(), "a refusal says something to people");
}

/// `INVALID_ARGUMENT` with the place: line and column in `ErrorInfo`, and in words in `BadRequest`.
fn is_at(refused: &Refused, reason: &str, line: u64, columns: std::ops::RangeInclusive<u64>) {
    is(refused, Code::InvalidArgument, reason);
    assert_eq!(refused.number("line"), Some(line), "{refused:?}");
    assert!(
        refused.number("column").is_some_and(|c| columns.contains(&c)),
        "{refused:?}"
    );
    let words = refused.bad_request().unwrap_or_default();
    assert!(
        words.contains(&line.to_string()),
        "BadRequest names the line: {refused:?}"
    );
}

#[tokio::test]
async fn a_malformed_document_is_refused_with_line_and_column() {
    let document = invoice(RSA, "<cbc:Note>Türkçe</cbc:Not>\n");
    is_at(&document_refused(document).await, "XML_MALFORMED", 6, 17..=27);
    is_at(&document_refused("").await, "XML_MALFORMED", 1, 1..=1);
    is_at(&document_refused("no document").await, "XML_MALFORMED", 1, 1..=2);
    is_at(
        &document_refused(invoice(RSA, "<a b='1' b='2'/>")).await,
        "XML_MALFORMED",
        6,
        1..=17,
    );
    is_at(
        &document_refused(invoice(RSA, "&yok;")).await,
        "XML_MALFORMED",
        6,
        1..=6,
    );
}

#[tokio::test]
async fn bytes_that_are_not_of_the_encoding_are_refused_as_malformed() {
    let mut document = invoice(RSA, "<cbc:Note>?</cbc:Note>").into_bytes();
    let at = document.iter().rposition(|b| *b == b'?').unwrap();
    document[at] = 0xfe; // ş in ISO-8859-9, and nothing at all in UTF-8
    is_at(&document_refused(document).await, "XML_MALFORMED", 6, 11..=11);
}

#[tokio::test]
async fn a_dtd_is_refused_whatever_it_says() {
    let dtd = invoice(RSA, "").replace("?>\n", "?>\n<!DOCTYPE Invoice>\n");
    is_at(&document_refused(dtd).await, "XML_DTD_FORBIDDEN", 2, 1..=10);
    let Some(hostile) = shared("data/hostile") else { return };
    for name in ["xxe-attack.xml", "billion-laughs.xml"] {
        let refused = document_refused(fs::read(hostile.join(name)).unwrap()).await;
        is(&refused, Code::InvalidArgument, "XML_DTD_FORBIDDEN");
    }
}

#[tokio::test]
async fn depth_width_and_size_are_limited() {
    let deep = format!("{}{}", "<d>".repeat(300), "</d>".repeat(300));
    is(
        &document_refused(invoice(RSA, &deep)).await,
        Code::InvalidArgument,
        "XML_LIMIT",
    );
    let attributes: String = (0..300).map(|i| format!(" a{i}=''")).collect();
    is(
        &document_refused(invoice(RSA, &format!("<w{attributes}/>"))).await,
        Code::InvalidArgument,
        "XML_LIMIT",
    );
    let long = "x".repeat(1 << 20);
    is(
        &document_refused(invoice(RSA, &long)).await,
        Code::InvalidArgument,
        "XML_LIMIT",
    );
}

#[tokio::test]
async fn a_root_that_no_law_knows_is_refused() {
    is(
        &document_refused("<Fatura/>").await,
        Code::InvalidArgument,
        "DOCUMENT_TYPE",
    );
    // The right name in no namespace is another name.
    is(
        &document_refused("<Invoice/>").await,
        Code::InvalidArgument,
        "DOCUMENT_TYPE",
    );
}

#[tokio::test]
async fn a_root_other_than_the_request_said_is_refused() {
    let request = SealRequest {
        options: Some(SealOptions {
            document_type: DocumentType::CreditNote.into(),
            ..SealOptions::default()
        }),
        ..Branch::request(RSA, invoice(RSA, ""))
    };
    is(&refusal_of(request).await, Code::InvalidArgument, "DOCUMENT_TYPE");
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let request = SealRequest {
        options: Some(SealOptions {
            document_type: DocumentType::Invoice.into(),
            ..SealOptions::default()
        }),
        ..Branch::request(RSA, invoice(RSA, ""))
    };
    client.seal(request).await.expect("what it said is what it is");
}

#[tokio::test]
async fn an_envelope_is_refused_with_the_advice_to_seal_what_is_inside() {
    let envelope = "<sh:StandardBusinessDocument \
         xmlns:sh=\"http://www.unece.org/cefact/namespaces/StandardBusinessDocumentHeader\"/>";
    let refused = document_refused(envelope).await;
    is(&refused, Code::InvalidArgument, "DOCUMENT_TYPE");
    assert!(refused.message.contains("inside"), "{refused:?}");
}

#[tokio::test]
async fn a_signature_id_that_is_no_ncname_is_refused() {
    let uri = "<cac:DigitalSignatureAttachment><cac:ExternalReference><cbc:URI>#1 imza</cbc:URI>\
         </cac:ExternalReference></cac:DigitalSignatureAttachment></cac:Signature>";
    let document = invoice(RSA, "").replace("</cac:Signature>", uri);
    is(&document_refused(document).await, Code::InvalidArgument, "SEAL_PLACE");
}

#[tokio::test]
async fn a_sealed_document_is_not_sealed_again() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let answer = client
        .seal(Branch::request(RSA, invoice(RSA, "")))
        .await
        .unwrap()
        .into_inner();
    let Some(Body::SealedDocument(sealed)) = answer.answer else {
        panic!("no document")
    };
    is(
        &document_refused(sealed).await,
        Code::FailedPrecondition,
        "ALREADY_SEALED",
    );
    let Some(others) = shared("data/signed") else { return };
    for file in files(&others, "xml") {
        let refused = document_refused(fs::read(&file).unwrap()).await;
        assert_eq!(refused.reason, "ALREADY_SEALED", "{}: {refused:?}", file.display());
    }
}

#[tokio::test]
async fn a_document_that_names_another_sealer_is_refused() {
    let refused = refusal_of(Branch::request(EC, invoice(RSA, ""))).await;
    is(&refused, Code::FailedPrecondition, "TAXPAYER_MISMATCH");
    assert!(
        refused.message.contains(EC) && refused.message.contains(RSA),
        "{refused:?}"
    );
}

#[tokio::test]
async fn whoever_is_named_but_cannot_be_read_is_a_mismatch_and_no_default() {
    let named = |signature: &str| {
        let plain = invoice(EC, "");
        let (from, to) = (
            plain.find("<cac:Signature>").unwrap(),
            plain.find("</cac:Signature>").unwrap(),
        );
        format!(
            "{}{signature}{}",
            &plain[..from],
            &plain[to + "</cac:Signature>".len()..]
        )
    };
    let one = |inner: &str| named(&format!("<cac:Signature>{inner}</cac:Signature>"));
    let ours = format!("<cbc:ID schemeID=\"VKN_TCKN\">{EC}</cbc:ID>");
    let party = |number: &str| {
        format!(
            "<cac:SignatoryParty><cac:PartyIdentification><cbc:ID schemeID=\"VKN\">{number}</cbc:ID>\
             </cac:PartyIdentification></cac:SignatoryParty>"
        )
    };
    for (document, words) in [
        (one(&format!("<cbc:ID>{RSA}</cbc:ID>")), RSA),
        (one(&format!("<cbc:ID schemeID=\"MERSISNO\">{RSA}</cbc:ID>")), RSA),
        (one("<cbc:ID schemeID=\"VKN_TCKN\">Deneme A.Ş.</cbc:ID>"), "no VKN"),
        (one(""), "names nobody"),
        (one(&format!("{ours}{}", party(RSA))), "two different taxpayers"),
        (
            named(&format!(
                "<cac:Signature>{ours}</cac:Signature><cac:Signature><cbc:ID>{RSA}</cbc:ID></cac:Signature>"
            )),
            "two different taxpayers",
        ),
    ] {
        let refused = refusal_of(Branch::request(EC, document)).await;
        is(&refused, Code::FailedPrecondition, "TAXPAYER_MISMATCH");
        assert!(refused.message.contains(words), "{refused:?}");
    }
}

#[tokio::test]
async fn a_taxpayer_without_a_seal_is_unknown() {
    for taxpayer in ["1234567890", "12345678901"] {
        let refused = refusal_of(Branch::request(taxpayer, invoice(RSA, ""))).await;
        is(&refused, Code::NotFound, "SEAL_UNKNOWN");
    }
    for no_number in ["", "x", "123456789", "123456789x", "１２３４５６７８９０"] {
        let refused = refusal_of(Branch::request(no_number, invoice(RSA, ""))).await;
        assert_eq!(refused.code, Code::InvalidArgument, "{refused:?}");
    }
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let status = client
        .get_seal(GetSealRequest {
            seal: Some(get_seal_request::Seal::Taxpayer("1234567890".to_owned())),
        })
        .await
        .unwrap_err();
    is(&refused(&status), Code::NotFound, "SEAL_UNKNOWN");
}

#[tokio::test]
async fn without_a_client_certificate_nobody_is_authenticated() {
    let outcome = Branch::nobody(appliance())
        .connect()
        .await
        .seal(Branch::request(RSA, invoice(RSA, "")))
        .await;
    is(
        &refused(&outcome.unwrap_err()),
        Code::Unauthenticated,
        "CLIENT_CERTIFICATE",
    );
    let counted = "muhurdar_seals_total{document=\"unknown\",outcome=\"CLIENT_CERTIFICATE\"}";
    assert!(appliance().metric(counted) >= 1.0, "who knocks is seen");
    let told =
        |line: &str| line.contains("denied") && line.contains("no client certificate") && line.contains("127.0.0.1:");
    assert!(appliance().log().lines().any(told), "and for the auditor");
    let outcome = Branch::nobody(appliance())
        .connect()
        .await
        .list_seals(ListSealsRequest::default())
        .await;
    is(
        &refused(&outcome.unwrap_err()),
        Code::Unauthenticated,
        "CLIENT_CERTIFICATE",
    );
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_get_in() {
    let other = Builder::default().taxpayers(0).prepare();
    let clients = other.dir().join("clients");
    let stranger = Branch::nobody(appliance()).with(&clients.join("branch-1.crt"), &clients.join("branch-1.key"));
    // In TLS 1.3 the client is done before the server has looked: the refusal may come with the first call.
    if let Ok(channel) = stranger.try_connect().await {
        let mut client = muhurdar_proto::seal::v1::seal_service_client::SealServiceClient::new(channel);
        let status = client.list_seals(ListSealsRequest::default()).await.unwrap_err();
        assert!(
            !matches!(status.code(), Code::Ok | Code::PermissionDenied | Code::NotFound),
            "{status:?}"
        );
    }
}

#[tokio::test]
async fn a_certified_stranger_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certify(appliance().dir(), folder.path(), "stranger");
    let mut client = Branch::nobody(appliance()).with(&certificate, &key).connect().await;
    let status = client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap_err();
    is(&refused(&status), Code::PermissionDenied, "ACCESS");
}

#[tokio::test]
async fn a_client_uses_the_calls_and_seals_it_was_given() {
    let mut auditor = Branch::of(appliance(), "auditor").connect().await;
    let status = auditor.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap_err();
    is(&refused(&status), Code::PermissionDenied, "ACCESS");
    let listed = auditor
        .list_seals(ListSealsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.seals.len(), 3);
    assert!(
        listed.seals.iter().all(|s| s.state() == SealState::Usable && s.chosen),
        "{listed:?}"
    );

    let mut branch = Branch::of(appliance(), "branch-2").connect().await;
    branch
        .seal(Branch::request(EC, invoice(EC, "")))
        .await
        .expect("its own seal");
    let status = branch.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap_err();
    is(&refused(&status), Code::PermissionDenied, "ACCESS");
    let listed = branch
        .list_seals(ListSealsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        listed.seals.iter().map(|s| s.taxpayer.as_str()).collect::<Vec<_>>(),
        [EC]
    );
    let status = branch
        .get_seal(GetSealRequest {
            seal: Some(get_seal_request::Seal::Taxpayer(RSA.to_owned())),
        })
        .await
        .unwrap_err();
    is(&refused(&status), Code::NotFound, "SEAL_UNKNOWN");
}

#[tokio::test]
async fn a_client_has_only_those_documents_sealed_that_it_may() {
    let mut waybills = Branch::of(appliance(), "waybills").connect().await;
    let status = waybills.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap_err();
    let refused = refused(&status);
    is(&refused, Code::PermissionDenied, "ACCESS");
    assert!(status.message().contains("Invoice"), "{status:?}");
    let log = appliance().log();
    let audited = |line: &str| {
        line.contains("muhurdar::audit")
            && line.contains("denied")
            && line.contains("waybills")
            && line.contains("`documents`")
    };
    assert!(log.lines().any(audited), "a denial is for the auditor too");
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples/eirsaliye.xml");
    let waybill = fs::read(sample).unwrap();
    let sealed = waybills.seal(Branch::request(RSA, waybill)).await;
    assert!(sealed.is_ok(), "its taxpayer is one of the pattern's: {sealed:?}");
}

#[tokio::test]
async fn a_batch_ends_with_its_caller_and_counts_until_it_is_answered() {
    const ITEMS: usize = 40;
    let slow = Builder::default()
        .taxpayers(1)
        .hsm(1, Duration::from_millis(50))
        .start();
    let mut client = Branch::of(&slow, "branch-1").connect().await;
    let items = vec![Branch::request(RSA, invoice(RSA, "")); ITEMS];
    let begun = slow.signatures();
    let call = tokio::spawn(async move { client.seal_batch(SealBatchRequest { items }).await });
    while slow.signatures() < begun + 5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let inside = slow.metric("muhurdar_in_flight_documents");
    assert!(inside >= 40.0, "{inside} of {ITEMS} are unanswered");
    call.abort();
    while slow.metric("muhurdar_in_flight_documents") > 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let signed = slow.signatures() - begun;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = slow.signatures() - begun;
    assert!(
        signed < ITEMS / 2 && later <= signed + 1,
        "{signed}, then {later} of {ITEMS} were signed"
    );
}

#[tokio::test]
async fn an_error_of_a_stream_stays_with_its_item() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let documents = [
        ("good", invoice(RSA, "")),
        ("broken", "<Invoice".to_owned()),
        ("other", invoice(EC, "")),
        ("also good", invoice(RSA, "<cbc:Note>2</cbc:Note>")),
    ];
    let items: Vec<_> = documents
        .into_iter()
        .map(|(id, document)| SealStreamRequest {
            id: id.to_owned(),
            request: Some(Branch::request(RSA, document)),
        })
        .chain([SealStreamRequest {
            id: "empty".to_owned(),
            request: None,
        }])
        .collect();
    let mut answers = client
        .seal_stream(tokio_stream::iter(items))
        .await
        .unwrap()
        .into_inner();
    let mut outcomes = std::collections::BTreeMap::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let said = match answer.outcome.unwrap() {
            Outcome::Response(_) => "sealed".to_owned(),
            Outcome::Error(error) => refused_item(&error).reason,
            Outcome::Draining(_) => panic!("it goes on"),
        };
        assert_eq!(outcomes.insert(answer.id, said), None, "each item is answered once");
    }
    let expected = [
        ("also good", "sealed"),
        ("broken", "XML_MALFORMED"),
        ("empty", "REQUEST"),
        ("good", "sealed"),
        ("other", "TAXPAYER_MISMATCH"),
    ];
    assert_eq!(
        outcomes,
        expected.map(|(id, said)| (id.to_owned(), said.to_owned())).into()
    );
}

#[tokio::test]
async fn a_batch_answers_each_item_in_its_place_and_takes_no_more_than_it_says() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let good = || Branch::request(RSA, invoice(RSA, ""));
    let items = vec![
        good(),
        Branch::request(RSA, "x"),
        good(),
        Branch::request("1234567890", invoice(RSA, "")),
    ];
    let results = client
        .seal_batch(SealBatchRequest { items })
        .await
        .unwrap()
        .into_inner()
        .results;
    let said: Vec<_> = results
        .into_iter()
        .map(|r| match r.outcome.unwrap() {
            BatchOutcome::Response(_) => "sealed".to_owned(),
            BatchOutcome::Error(error) => refused_item(&error).reason,
        })
        .collect();
    assert_eq!(said, ["sealed", "XML_MALFORMED", "sealed", "SEAL_UNKNOWN"]);
    let status = client
        .seal_batch(SealBatchRequest { items: vec![good(); 9] })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
}

#[tokio::test]
async fn no_refusal_repeats_the_document() {
    const SECRET: &str = "gizli-icerik-4711";
    let documents = [
        format!("<{SECRET}/>"),
        invoice(RSA, &format!("<cbc:Note>{SECRET}</cbc:Not>")),
        invoice(RSA, &format!("<cbc:Note a='{SECRET}' a='{SECRET}'/>")),
        invoice(RSA, &format!("&{SECRET};")),
        invoice(SECRET, ""),
        invoice(RSA, "").replace(
            "<cbc:ID>TST",
            &format!("<cbc:Note>{SECRET}</cbc:Note><!-- -- --><cbc:ID>TST"),
        ),
    ];
    for document in documents {
        let refused = document_refused(document.clone()).await;
        // A name may be told where it is the very fault; text and values never.
        let told = format!("{} {:?}", refused.message, refused.details);
        let fault = matches!(refused.reason.as_str(), "DOCUMENT_TYPE") || document.contains(&format!("&{SECRET};"));
        assert!(fault || !told.contains(SECRET), "{refused:?}");
    }
    assert!(!appliance().log().contains(SECRET), "nor does the log");
}
