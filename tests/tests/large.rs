//! Documents that are too large for a message: chunks both ways, and memory that does not grow with them. Two are let in at a
//! time, so those tests that count on it have their turn.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use muhurdar_proto::seal::v1::{
    AnswerKind, DocumentType, SealLargeEnd, SealLargeHeader, SealLargeRequest, SealLargeResponse, SealLargeResult,
    SealOptions, seal_large_request::Part as Ask, seal_large_response::Part, seal_service_client::SealServiceClient,
};
use muhurdar_tests::{Appliance, Branch, Builder, RSA, Refused, invoice, muhurdar, refused, turn, xmlsec1};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming, transport::Channel};

const MIB: usize = 1 << 20;

fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        Builder::default()
            .taxpayers(2)
            .client("invoices", "taxpayers = [\"*\"]\ndocuments = [\"invoice\"]")
            .client("none", "taxpayers = [\"*\"]\n[client.quota]\nlarge_in_flight = 0")
            .limits("document = \"1 MiB\"\nlarge_document = \"220 MiB\"\nlarge_in_flight = 2")
            .start()
    })
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<edefter:defter xmlns:edefter=\"http://www.edefter.gov.tr\">\n\
     <xbrli:xbrl xmlns:xbrli=\"http://www.xbrl.org/2003/instance\" xmlns:gl-cor=\"http://www.xbrl.org/int/gl/cor/2006-10-25\">\n";
const TAIL: &str = "</xbrli:xbrl>\n</edefter:defter>\n";

/// Entries of a ledger, a chunk full.
fn entries() -> Bytes {
    let entry = "<gl-cor:entryDetail><gl-cor:amount decimals='2'>1.00 &gt; Ş</gl-cor:amount></gl-cor:entryDetail>\r\n";
    entry.repeat(256 * 1024 / entry.len()).into()
}

/// A ledger of about so many bytes, in chunks.
fn ledger(bytes: usize) -> impl Iterator<Item = Bytes> {
    let entries = entries();
    let count = bytes / entries.len();
    [Bytes::from(HEAD)]
        .into_iter()
        .chain(std::iter::repeat_n(entries, count))
        .chain([Bytes::from(TAIL)])
}

fn header() -> SealLargeHeader {
    SealLargeHeader {
        taxpayer: RSA.to_owned(),
        ..SealLargeHeader::default()
    }
}

fn request(part: Ask) -> SealLargeRequest {
    SealLargeRequest { part: Some(part) }
}

fn requests(
    header: SealLargeHeader,
    chunks: impl Iterator<Item = Bytes> + Send,
) -> impl Stream<Item = SealLargeRequest> {
    tokio_stream::iter(
        [request(Ask::Header(header))]
            .into_iter()
            .chain(chunks.map(|c| request(Ask::Chunk(c)))),
    )
}

async fn client() -> SealServiceClient<Channel> {
    client_of("branch-1").await
}

async fn client_of(name: &str) -> SealServiceClient<Channel> {
    Branch::of(appliance(), name).connect().await
}

/// The result, what `each` made of the chunks, and the end.
async fn read(
    mut answers: Streaming<SealLargeResponse>,
    mut each: impl FnMut(Bytes),
) -> Result<(SealLargeResult, SealLargeEnd), Status> {
    let Some(Part::Result(result)) = answers.message().await?.unwrap().part else {
        panic!("no result at first")
    };
    loop {
        match answers.message().await?.expect("an end at last").part.unwrap() {
            Part::Chunk(chunk) => each(chunk),
            Part::End(end) => {
                assert!(answers.message().await?.is_none(), "nothing after the end");
                return Ok((result, end));
            }
            Part::Result(_) => panic!("a second result"),
        }
    }
}

async fn seal(header: SealLargeHeader, document: &[u8]) -> Result<(Vec<u8>, SealLargeResult, SealLargeEnd), Refused> {
    seal_by("branch-1", header, document).await
}

async fn seal_by(
    name: &str,
    header: SealLargeHeader,
    document: &[u8],
) -> Result<(Vec<u8>, SealLargeResult, SealLargeEnd), Refused> {
    let chunks: Vec<_> = document.chunks(100_000).map(Bytes::copy_from_slice).collect();
    let requests = requests(header, chunks.into_iter());
    let mut sealed = Vec::new();
    let outcome = async {
        let answers = client_of(name).await.seal_large(requests).await?.into_inner();
        read(answers, |chunk| sealed.extend_from_slice(&chunk)).await
    };
    match outcome.await {
        Ok((result, end)) => {
            assert_eq!(
                end.size,
                if sealed.is_empty() {
                    end.size
                } else {
                    sealed.len() as u64
                }
            );
            Ok((sealed, result, end))
        }
        Err(status) => Err(refused(&status)),
    }
}

/// Peak of the appliance's resident memory so far, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", appliance().pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_200_mb_is_sealed_in_a_few_tens_of_megabytes() {
    let _turn = turn().await;
    drop(
        seal(header(), &ledger(2 * MIB).collect::<Vec<_>>().concat())
            .await
            .unwrap(),
    );
    let before = peak();
    let bytes: usize = ledger(200_000_000).map(|c| c.len()).sum();
    let answers = client()
        .await
        .seal_large(requests(header(), ledger(200_000_000)))
        .await
        .unwrap()
        .into_inner();
    let (mut read_bytes, mut last) = (0_u64, Bytes::new());
    let (result, end) = read(answers, |chunk| {
        read_bytes += chunk.len() as u64;
        last = chunk;
    })
    .await
    .unwrap();
    assert_eq!(read_bytes, end.size);
    assert!(end.size > bytes as u64 + 2000 && end.size < bytes as u64 + 20_000);
    assert!(last.ends_with(b"</ds:Signature></edefter:defter>\n") || last.ends_with(TAIL.as_bytes()));
    assert_eq!(
        result.result.unwrap().receipt.unwrap().document_type(),
        DocumentType::EdefterLedger
    );
    let grown = peak() - before;
    println!(
        "{} MB sealed; the peak of the service's memory grew by {} KiB to {} MiB",
        bytes / 1_000_000,
        grown / 1024,
        peak() >> 20
    );
    assert!(grown < 32 << 20, "{grown} bytes");
}

fn sha256(file: &Path) -> String {
    let output = muhurdar_tests::Output::of(std::process::Command::new("sha256sum").arg(file));
    output.text.split(' ').next().unwrap().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_verifies_whole_or_in_parts_wherever_the_seal_stands() {
    let _turn = turn().await;
    let attachment = format!("<cbc:Note>{}</cbc:Note>\n", "QUJD".repeat(MIB));
    let documents = [
        ("ledger", ledger(5 * MIB).collect::<Vec<_>>().concat()),
        ("invoice", invoice(RSA, &attachment).into_bytes()),
        ("small", invoice(RSA, "").into_bytes()),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, document) in documents {
        let (sealed, result, end) = seal(header(), &document).await.unwrap();
        assert!(result.patch.is_none());
        let file = folder.path().join(name);
        fs::write(&file, &sealed).unwrap();
        assert_eq!(sha256(&file), hex(&end.sealed_document_sha256), "{name}");
        xmlsec1(&file).unwrap_or_else(|said| panic!("{name}: {said}"));

        let only = SealLargeHeader {
            options: Some(SealOptions {
                answer: AnswerKind::Patch.into(),
                ..SealOptions::default()
            }),
            size: Some(document.len() as u64),
            ..header()
        };
        let (nothing, result, end) = seal(only, &document).await.unwrap();
        assert!(nothing.is_empty());
        let seal = result.patch.unwrap();
        let (offset, length) = (
            usize::try_from(seal.offset).unwrap(),
            usize::try_from(seal.length).unwrap(),
        );
        let spliced = [&document[..offset], &seal.replacement, &document[offset + length..]].concat();
        fs::write(&file, &spliced).unwrap();
        assert_eq!(sha256(&file), hex(&end.sealed_document_sha256), "{name}");
        assert_eq!(end.size, spliced.len() as u64);
        xmlsec1(&file).unwrap_or_else(|said| panic!("{name}, spliced by the caller: {said}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_document_is_refused_as_a_small_one_is() {
    let _turn = turn().await;
    let good = ledger(MIB).collect::<Vec<_>>().concat();
    let is = |refused: Refused, code: Code, reason: &str| {
        assert_eq!((refused.code, refused.reason.as_str()), (code, reason), "{refused:?}");
    };
    let broken = seal(header(), &good[..good.len() - 5]).await.unwrap_err();
    assert!(broken.number("line").is_some_and(|line| line > 10_000), "{broken:?}");
    is(broken, Code::InvalidArgument, "XML_MALFORMED");
    let (sealed, ..) = seal(header(), &good).await.unwrap();
    is(
        seal(header(), &sealed).await.unwrap_err(),
        Code::FailedPrecondition,
        "ALREADY_SEALED",
    );
    let other = invoice("1000000018", "").into_bytes();
    is(
        seal(header(), &other).await.unwrap_err(),
        Code::FailedPrecondition,
        "TAXPAYER_MISMATCH",
    );
    let unknown = SealLargeHeader {
        taxpayer: "1234567890".to_owned(),
        ..header()
    };
    is(seal(unknown, &good).await.unwrap_err(), Code::NotFound, "SEAL_UNKNOWN");
    let expected = SealLargeHeader {
        options: Some(SealOptions {
            document_type: DocumentType::Invoice.into(),
            ..SealOptions::default()
        }),
        ..header()
    };
    is(
        seal(expected, &good).await.unwrap_err(),
        Code::InvalidArgument,
        "DOCUMENT_TYPE",
    );
    let declared = SealLargeHeader {
        size: Some(300 << 20),
        ..header()
    };
    is(
        seal(declared, &good).await.unwrap_err(),
        Code::InvalidArgument,
        "XML_LIMIT",
    );
    let mut auditor = Branch::of(appliance(), "auditor").connect().await;
    let mut invoices = Branch::of(appliance(), "invoices").connect().await;
    let outcome = match invoices.seal_large(requests(header(), ledger(1))).await {
        Ok(answers) => answers.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    let denied = refused(&outcome.expect_err("a ledger is no invoice"));
    assert_eq!(
        (denied.code, denied.reason.as_str()),
        (Code::PermissionDenied, "ACCESS")
    );

    let status = auditor.seal_large(requests(header(), ledger(1))).await.unwrap_err();
    is(refused(&status), Code::PermissionDenied, "ACCESS");
}

async fn refusal_of(parts: Vec<SealLargeRequest>) -> Refused {
    let answers = client().await.seal_large(tokio_stream::iter(parts)).await.unwrap();
    refused(&answers.into_inner().message().await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_makes_no_sense_is_told_which_part() {
    let _turn = turn().await;
    let chunk = |bytes: usize| request(Ask::Chunk(vec![b' '; bytes].into()));
    let head = || request(Ask::Header(header()));
    for (parts, field) in [
        (vec![], "header"),
        (vec![chunk(3)], "header"),
        (vec![head(), head()], "header"),
        (vec![head(), chunk(MIB + 1)], "chunk"),
        (vec![head(), SealLargeRequest { part: None }], "part"),
    ] {
        let refused = refusal_of(parts).await;
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::InvalidArgument, "REQUEST"),
            "{refused:?}"
        );
        assert_eq!(refused.details.bad_request().unwrap().field_violations[0].field, field);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_at_a_time_half_of_them_one_clients_and_one_who_goes_away_leaves_its_place() {
    let _turn = turn().await;
    let end = Instant::now() + Duration::from_secs(20);
    // Tries until it is refused: those who came before have not been looked at until then.
    let refused = async |name: &str, reason: &str| loop {
        if let Err(refused) = seal_by(name, header(), invoice(RSA, "").as_bytes()).await {
            assert_eq!(
                (refused.code, refused.reason.as_str()),
                (Code::ResourceExhausted, reason),
                "{refused:?}"
            );
            assert!(refused.details.retry_info().is_some());
            return refused;
        }
        assert!(Instant::now() < end, "{name} is not refused");
    };
    let sealed = async |name: &str| loop {
        match seal_by(name, header(), invoice(RSA, "").as_bytes()).await {
            Ok(_) => return,
            Err(refused) => assert!(Instant::now() < end, "{refused:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let open = async |name: &str| {
        let (send, outgoing) = mpsc::channel(4);
        send.send(request(Ask::Header(header()))).await.unwrap();
        send.send(request(Ask::Chunk(HEAD.into()))).await.unwrap();
        let answers = client_of(name).await.seal_large(ReceiverStream::new(outgoing)).await;
        (send, answers.unwrap().into_inner())
    };
    let first = open("branch-1").await;
    // Headers are cheap: were they enough, one client could take the places of all.
    let own = refused("branch-1", "QUOTA").await;
    let violations = &own.details.quota_failure().unwrap().violations;
    assert_eq!(violations[0].subject, "large_in_flight");
    sealed("branch-2").await;
    refused("none", "QUOTA").await;

    let second = open("branch-2").await;
    refused("invoices", "OVERLOADED").await;
    drop(second);
    sealed("invoices").await;
    // The one that stayed is served when the rest of it comes.
    let (send, answers) = first;
    send.send(request(Ask::Chunk(TAIL.into()))).await.unwrap();
    drop(send);
    read(answers, drop).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_seals_a_large_file_in_chunks() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("kebir.xml"), folder.path().join("out"));
    fs::write(&file, ledger(12 * MIB).collect::<Vec<_>>().concat()).unwrap();
    let config = appliance().dir().join("client.toml");
    for more in [&[][..], &["--signature-only"]] {
        let arguments = [config.to_str().unwrap(), out.to_str().unwrap(), file.to_str().unwrap()];
        let [config, out, file] = arguments;
        let arguments = ["seal", "--config", config, "--taxpayer", RSA, "--out", out, file];
        let said = muhurdar(&[&arguments, more].concat());
        assert!(said.status.success(), "{}", said.text);
        let sealed = folder.path().join("out/kebir.xml");
        let ca = appliance().dir().join("ca.crt");
        let said = muhurdar(&["verify", "--trust", ca.to_str().unwrap(), sealed.to_str().unwrap()]);
        assert!(said.status.success(), "{}", said.text);
        fs::remove_file(&sealed).unwrap();
    }
    fs::write(
        &file,
        ledger(12 * MIB).chain([Bytes::from("<")]).collect::<Vec<_>>().concat(),
    )
    .unwrap();
    let said = muhurdar(&[
        "seal",
        "--config",
        config.to_str().unwrap(),
        "--taxpayer",
        RSA,
        "--out",
        out.to_str().unwrap(),
        file.to_str().unwrap(),
    ]);
    assert_eq!(said.status.code(), Some(1), "{}", said.text);
    assert!(said.text.contains("XML_MALFORMED"), "{}", said.text);
    assert_eq!(out.read_dir().unwrap().count(), 0, "nothing half is left");
}

#[tokio::test]
async fn one_who_stops_reading_is_in_nobodys_way() {
    let _turn = turn().await;
    // One that goes away in the middle of its answer is not in anybody's way.
    let mut answers = client()
        .await
        .seal_large(requests(header(), ledger(20 * MIB)))
        .await
        .unwrap()
        .into_inner();
    assert!(answers.next().await.unwrap().is_ok());
    drop(answers);
    seal(header(), invoice(RSA, "").as_bytes()).await.unwrap();
}
