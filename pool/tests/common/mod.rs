//! A SoftHSM2 token for a test binary. SOFTHSM2_CONF is read at C_Initialize, once per process, and must be set before a thread exists: so
//! these binaries bring their own `main`, and libtest-mimic runs the tests.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::needless_pass_by_value,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "test support: each test binary uses its part, and a panic is a failed test"
)]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use muhurdar_pool::admin::{self, Generate, Module};
use muhurdar_pool::{
    Config, Hash, InitArgs, Key, KeyKind, Latches, Pin, Pool, Select, SignInput, TokenConfig, exit, isolation,
};

pub const PIN: &str = "648219";

pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub module: PathBuf,
}

static FIXTURE: OnceLock<Fixture> = OnceLock::new();

pub fn fixture() -> &'static Fixture {
    FIXTURE.get().expect("main made the fixture before any test")
}

/// Runs the tests on a fresh SoftHSM2, or says why not.
pub fn main(extra: &[(&str, PathBuf)], tests: Vec<Trial>) -> ExitCode {
    let mut own = std::env::args_os().skip(1);
    if own.next().is_some_and(|first| first == isolation::SUBCOMMAND) {
        exit::run(|| match isolation::child_main(own) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("{error}");
                1
            }
        });
    }
    let mut arguments = Arguments::from_args();
    // The token is one for the process, and figures should not be of each other's load.
    arguments.test_threads = Some(1);
    if !arguments.list {
        let Some(module) = admin::find_softhsm2() else {
            println!(
                "SKIPPED: SoftHSM2 is not installed (apt-get install softhsm2); looked in {:?}",
                admin::softhsm2_places()
            );
            return ExitCode::SUCCESS;
        };
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let conf = dir.path().join("softhsm2.conf");
        std::fs::write(
            &conf,
            format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display()),
        )
        .unwrap();
        let mut environment = vec![("SOFTHSM2_CONF", conf)];
        environment.extend(extra.iter().map(|(name, value)| (*name, value.clone())));
        muhurdar_pool::set_module_environment(environment).unwrap();
        FIXTURE.set(Fixture { dir, module }).ok().unwrap();
    }
    let conclusion = libtest_mimic::run(&arguments, tests);
    if let Some(fixture) = FIXTURE.get() {
        // exit() runs no destructor of a static.
        let _ = std::fs::remove_dir_all(fixture.dir.path());
    }
    // Pools that tests left open are in the module still.
    exit::run(|| if conclusion.has_failed() { 101 } else { 0 })
}

/// A test on a runtime of its own.
pub fn test<F: Future<Output = ()>>(name: &str, body: impl Fn() -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
        Ok::<_, Failed>(())
    })
}

pub fn blocking(name: &str, body: impl Fn() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        body();
        Ok::<_, Failed>(())
    })
}

/// A fresh SoftHSM2 token with these keys; CKA_ID is the position, from 1.
pub fn token(label: &str, keys: &[Generate]) -> TokenConfig {
    fresh(
        &fixture().module,
        None,
        label,
        Pin::value("87654321"),
        Pin::value(PIN),
        keys,
    )
}

/// A fresh token of any module, as [`token`].
pub fn fresh(module: &Path, slot: Option<u64>, label: &str, so_pin: Pin, pin: Pin, keys: &[Generate]) -> TokenConfig {
    Module::open(module, InitArgs::OsLocking)
        .unwrap()
        .init_token(slot, label, &so_pin, &pin)
        .unwrap();
    let config = TokenConfig::new(label, module, Select::Label(label.into()), pin);
    generate(&config, keys);
    config
}

/// Makes keys; CKA_ID is the position, from 1.
pub fn generate(config: &TokenConfig, keys: &[Generate]) {
    let token = log_in(config);
    for (at, what) in keys.iter().enumerate() {
        token
            .generate(*what, &format!("{} {at}", config.name), &id(at))
            .unwrap();
    }
}

/// Signs with every key of a token that holds these, with every hash that goes with it; openssl verifies.
pub async fn every_kind_signs(config: TokenConfig, kinds: &[Generate]) {
    let pool = open(vec![config]).await;
    let keys = pool.keys();
    assert_eq!(keys.len(), kinds.len());
    for key in &keys {
        let message = b"what nobody here wrote must verify".as_slice();
        let hashes = match key.kind {
            KeyKind::Rsa { .. } => vec![Hash::Sha256, Hash::Sha384, Hash::Sha512],
            kind => vec![kind.default_hash()],
        };
        for hash in hashes {
            let signed = pool
                .sign(key.id, SignInput::message(hash, message), None)
                .await
                .unwrap();
            assert_eq!(signed.value.len(), key.kind.signature_len(), "{}", key.kind);
            verify_with_openssl(key, hash, message, &signed.value);
        }
    }
    let status = pool.status();
    assert!(status.is_ready());
    assert!(status.signatures >= keys.len() as u64, "{status:?}");
    assert!(status.token_cpu > Duration::ZERO);
    pool.close().await;
}

pub fn id(at: usize) -> [u8; 1] {
    [u8::try_from(at).unwrap() + 1]
}

pub fn log_in(config: &TokenConfig) -> admin::Token {
    Module::open(&config.module, InitArgs::OsLocking)
        .unwrap()
        .log_in(config, &Latches::in_memory())
        .unwrap()
}

/// A session of a login of one's own, for what only other people's tools do to a token. The module goes last.
pub fn session(config: &TokenConfig) -> (cryptoki::context::Pkcs11, cryptoki::session::Session) {
    let Select::Label(label) = &config.select else {
        panic!("tokens of these tests are selected by label")
    };
    Module::open(&config.module, config.init_args).unwrap();
    let module = cryptoki::context::Pkcs11::new(&config.module).unwrap();
    let slots = module.get_slots_with_initialized_token().unwrap();
    let slot = slots
        .into_iter()
        .find(|slot| module.get_token_info(*slot).unwrap().label().trim_end() == label)
        .unwrap();
    let session = module.open_rw_session(slot).unwrap();
    // Whoever holds a login of this process has logged this session in.
    let _ = session.login(
        cryptoki::session::UserType::User,
        Some(&cryptoki::types::AuthPin::from(PIN)),
    );
    (module, session)
}

/// A key pair with these names and this CKA_SIGN, as others' tools make them: what this pool's own would refuse.
pub fn foreign_key(config: &TokenConfig, curve: &[u8], label: &str, cka_id: &[u8], signs: bool, keep_public: bool) {
    use cryptoki::mechanism::Mechanism;
    use cryptoki::object::Attribute;
    let (_module, session) = session(config);
    let names = [
        Attribute::Token(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(cka_id.to_vec()),
    ];
    let public = [
        &names[..],
        &[Attribute::EcParams(curve.to_vec()), Attribute::Verify(true)],
    ]
    .concat();
    let private = [&names[..], &[Attribute::Private(true), Attribute::Sign(signs)]].concat();
    let (public, _) = session
        .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
        .unwrap();
    if !keep_public {
        session.destroy_object(public).unwrap();
    }
}

/// CKA_EC_PARAMS of secp256r1 and secp256k1.
pub const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub const K256: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// So many P-256 keys with one CKA_ID and label.
pub fn namesakes(config: &TokenConfig, count: usize) {
    for _ in 0..count {
        foreign_key(config, &P256, "namesake", &[9], true, true);
    }
}

pub async fn open(tokens: Vec<TokenConfig>) -> Pool {
    Pool::open(Config::new(tokens)).await.unwrap()
}

/// One RSA key for every token of a test binary (PKCS#8, DER): the same seal on several tokens.
pub fn shared_key() -> &'static [u8] {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    KEY.get_or_init(|| {
        let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&key).unwrap();
        der.as_ref().to_vec()
    })
}

/// Closes a pool that a load has used.
pub async fn close(pool: Arc<Pool>) {
    Arc::into_inner(pool).expect("the load has ended").close().await;
}

/// Verifies with code that the pool does not use: `openssl`.
pub fn verify_with_openssl(key: &Key, hash: Hash, message: &[u8], signature: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let spki = write("spki.der", &key.spki_der);
    let der = match key.kind {
        KeyKind::Rsa { .. } => signature.to_vec(),
        _ => ecdsa_der(signature),
    };
    let signature = write("signature", &der);
    let message = write("message", message);
    let hash = match hash {
        Hash::Sha256 => "-sha256",
        Hash::Sha384 => "-sha384",
        Hash::Sha512 => "-sha512",
    };
    let output = std::process::Command::new("openssl")
        .args(["dgst", hash, "-keyform", "DER", "-verify"])
        .arg(spki)
        .arg("-signature")
        .args([signature, message])
        .output()
        .expect("openssl is on every machine that runs these tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// r‖s to ECDSA-Sig-Value (RFC 3279), as openssl wants it.
fn ecdsa_der(raw: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len() - 1);
        let mut value = bytes[start..].to_vec();
        if value[0] & 0x80 != 0 {
            value.insert(0, 0);
        }
        let mut out = vec![2, u8::try_from(value.len()).unwrap()];
        out.extend(value);
        out
    };
    let (r, s) = raw.split_at(raw.len() / 2);
    let body = [integer(r), integer(s)].concat();
    let mut out = vec![0x30];
    if body.len() > 127 {
        out.push(0x81);
    }
    out.push(u8::try_from(body.len()).unwrap());
    out.extend(body);
    out
}

/// Keeps `clients` callers signing until told to stop; every answer is counted and every signature verified by aws-lc.
pub struct Load {
    stop: Arc<std::sync::atomic::AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Tally>>,
    begun: std::time::Instant,
}

#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub asked: u64,
    pub signed: u64,
    pub refused: u64,
    pub wrong: u64,
    /// When each signature came, from the start of the load, and its latency.
    pub signed_at: Vec<(Duration, Duration)>,
    pub refusals: Vec<(Duration, String)>,
    pub elapsed: Duration,
}

impl Tally {
    /// Every request was signed, and rightly.
    pub fn assert_untouched(&self) {
        assert_eq!(
            (self.lost(), self.wrong, self.refused),
            (0, 0, 0),
            "{:?}",
            self.refusals
        );
    }

    /// Requests that were neither answered nor refused.
    pub fn lost(&self) -> u64 {
        self.asked - self.signed - self.refused
    }
    /// The longest time without a signature after `from`.
    pub fn longest_gap_after(&self, from: Duration) -> Duration {
        let mut times: Vec<_> = self
            .signed_at
            .iter()
            .map(|(at, _)| *at)
            .filter(|at| *at >= from)
            .collect();
        times.sort();
        times.push(self.elapsed);
        let mut last = from;
        let mut gap = Duration::ZERO;
        for at in times {
            gap = gap.max(at.saturating_sub(last));
            last = at;
        }
        gap
    }
    pub fn rate(&self) -> f64 {
        self.signed as f64 / self.elapsed.as_secs_f64()
    }
    pub fn percentile(&self, p: f64) -> Duration {
        let mut latencies: Vec<_> = self.signed_at.iter().map(|(_, latency)| *latency).collect();
        latencies.sort();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        latencies[((latencies.len() - 1) as f64 * p) as usize]
    }
}

impl Load {
    pub fn start(pool: &Arc<Pool>, key: &Key, clients: usize) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let begun = std::time::Instant::now();
        let tasks = (0..clients)
            .map(|client| {
                let (pool, key, stop) = (Arc::clone(pool), key.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut tally = Tally::default();
                    let mut n = 0u64;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        n += 1;
                        let message = format!("client {client} document {n}").into_bytes();
                        let input = SignInput::message(key.kind.default_hash(), message.clone());
                        tally.asked += 1;
                        let asked = begun.elapsed();
                        match pool.sign(key.id, input, None).await {
                            Ok(signed) => {
                                tally.signed += 1;
                                tally.wrong += u64::from(!verifies(&key, &message, &signed.value));
                                tally
                                    .signed_at
                                    .push((begun.elapsed(), begun.elapsed().saturating_sub(asked)));
                            }
                            Err(error) => {
                                tally.refused += 1;
                                tally.refusals.push((begun.elapsed(), error.to_string()));
                                // As a caller that is told to come back later does.
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                        }
                    }
                    tally
                })
            })
            .collect();
        Self { stop, tasks, begun }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub async fn stop(self) -> Tally {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut total = Tally::default();
        for task in self.tasks {
            let one = tokio::time::timeout(Duration::from_secs(30), task)
                .await
                .expect("a request hangs")
                .unwrap();
            total.asked += one.asked;
            total.signed += one.signed;
            total.refused += one.refused;
            total.wrong += one.wrong;
            total.signed_at.extend(one.signed_at);
            total.refusals.extend(one.refusals);
        }
        total.elapsed = self.begun.elapsed();
        total
    }
}

pub fn verifies(key: &Key, message: &[u8], signature: &[u8]) -> bool {
    use aws_lc_rs::signature as s;
    let algorithm: &dyn s::VerificationAlgorithm = match key.kind {
        KeyKind::Rsa { .. } => &s::RSA_PKCS1_2048_8192_SHA256,
        KeyKind::Ec(muhurdar_pool::Curve::P256) => &s::ECDSA_P256_SHA256_FIXED,
        KeyKind::Ec(muhurdar_pool::Curve::P384) => &s::ECDSA_P384_SHA384_FIXED,
        _ => &s::ECDSA_P521_SHA512_FIXED,
    };
    s::ParsedPublicKey::new(algorithm, &*key.spki_der)
        .unwrap()
        .verify_sig(message, signature)
        .is_ok()
}

pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}
