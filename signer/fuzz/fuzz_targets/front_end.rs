//! Whatever a client with every right sends as messages, to whatever call: an answer or a refusal, no panic, no hang, and what is sealed
//! verifies. Everything is real from the HTTP/2 frames on: a service in this process, a SoftHSM2 token, a Unix socket.
//!
//! The first byte of an input chooses the call, the rest is its message; where the call takes a stream, the byte 0xFE parts messages.
#![no_main]

use std::{path::Path, sync::LazyLock, time::Duration};

use bytes::{Buf as _, BufMut as _};
use libfuzzer_sys::fuzz_target;
use muhurdar::{appliance::Appliance, config::Config};
use muhurdar_proto::seal::v1::{
    SealResponse, SealStreamResponse, seal_response::Result as Body, seal_stream_response::Outcome,
};
use muhurdar_xades::{VerifyOptions, verify};
use prost::Message as _;
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

/// The calls, and whether they take a stream.
const CALLS: [(&str, bool); 8] = [
    ("Seal", false),
    ("SealStream", true),
    ("SealBatch", false),
    ("SealLarge", true),
    ("SignDigest", false),
    ("ListSeals", false),
    ("GetSeal", false),
    ("GetServerInfo", false),
];
const PART: u8 = 0xFE;

static SERVICE: LazyLock<(Runtime, Channel)> = LazyLock::new(start);

/// The appliance is prepared outside: a library reads its environment once, and libFuzzer has threads before this is called.
fn start() -> (Runtime, Channel) {
    let dir =
        std::env::var_os("MUHURDAR_FUZZ_DIR").expect("scripts/fuzz.sh prepares an appliance and names its folder");
    let (file, socket) = (Path::new(&dir).join("muhurdar.toml"), Path::new(&dir).join("socket"));
    let text = std::fs::read_to_string(&file).expect("dev writes it");
    if !text.contains("name = \"fuzz\"") {
        let text = text.replacen("[server]\n", &format!("[server]\nunix_socket = {socket:?}\n"), 1);
        let client = format!(
            "\n[[client]]\nname = \"fuzz\"\nidentity = \"uid:{}\"\ntaxpayers = [\"*\"]\ncalls = [\"seal\", \"list\", \"digest\"]\n",
            rustix::process::getuid().as_raw()
        );
        std::fs::write(&file, text + &client).expect("it can be written");
    }
    let config = Config::load(&file).expect("it is a configuration");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let channel = runtime.block_on(serve(config, &file, &socket));
    (runtime, channel)
}

async fn serve(config: Config, file: &Path, socket: &Path) -> Channel {
    let appliance = Appliance::start(config).await.expect("the service starts");
    let (file, socket) = (file.to_owned(), socket.to_owned());
    tokio::spawn(async move { appliance.run(std::future::pending(), &file).await });
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost").timeout(Duration::from_secs(8));
    endpoint.connect_with_connector(connect).await.expect("it listens")
}

/// Messages as they are: it is the service that decodes them.
#[derive(Debug, Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut whole = vec![0; from.remaining()];
        from.copy_to_slice(&mut whole);
        Ok(Some(whole))
    }
}

/// One call, to its end.
async fn call(name: &str, streams: bool, message: &[u8]) -> Result<(), Status> {
    let mut client = Grpc::new(SERVICE.1.clone());
    client.ready().await.expect("the service is there");
    let path = format!("/muhurdar.seal.v1.SealService/{name}").parse().expect("a path");
    if !streams {
        let answer = client.unary(Request::new(message.to_vec()), path, Raw).await?;
        look(name, &answer.into_inner());
        return Ok(());
    }
    let parts: Vec<_> = message.split(|byte| *byte == PART).map(<[u8]>::to_vec).collect();
    let answers = client
        .streaming(Request::new(tokio_stream::iter(parts)), path, Raw)
        .await?;
    let mut answers = answers.into_inner();
    while let Some(answer) = answers.message().await? {
        look(name, &answer);
    }
    Ok(())
}

/// A document that was sealed is one that verifies.
fn look(name: &str, answer: &[u8]) {
    let response = match name {
        "Seal" => Some(SealResponse::decode(answer).expect("the service writes what its contract says")),
        "SealStream" => match SealStreamResponse::decode(answer)
            .expect("the service writes what its contract says")
            .outcome
        {
            Some(Outcome::Response(response)) => Some(response),
            _ => None,
        },
        _ => None,
    };
    if let Some(Body::SealedDocument(sealed)) = response.and_then(|response| response.result) {
        verify(&sealed, &VerifyOptions::default()).expect("what is sealed verifies");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((which, message)) = input.split_first() else {
        return;
    };
    let (name, streams) = CALLS[usize::from(*which) % CALLS.len()];
    if let Err(status) = SERVICE.0.block_on(call(name, streams, message)) {
        let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
        assert_ne!(reason.as_deref(), Some("INTERNAL"), "{name}: {status:?}");
        assert!(
            !matches!(status.code(), Code::Unknown | Code::DeadlineExceeded | Code::Cancelled),
            "{name}: {status:?}"
        );
    }
});
